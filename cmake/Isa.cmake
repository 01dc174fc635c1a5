# The one place that holds instruction-set flags. Files named <tier>.cc below csrc/kernels/cpu are compiled for
# that tier; everything else is compiled for the baseline.
set(INFERKIT_X86_TIERS avx2 avx512 vnni bf16 amx)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(INFERKIT_ISA_TIERS baseline ${INFERKIT_X86_TIERS})
  target_compile_options(inferkit_flags INTERFACE -march=x86-64-v2)
  set(INFERKIT_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2)
  set(INFERKIT_ISA_FLAGS_avx512 ${INFERKIT_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
                                -mprefer-vector-width=512)
  set(INFERKIT_ISA_FLAGS_vnni ${INFERKIT_ISA_FLAGS_avx512} -mavx512vnni)
  set(INFERKIT_ISA_FLAGS_bf16 ${INFERKIT_ISA_FLAGS_avx512} -mavx512bf16)
  set(INFERKIT_ISA_FLAGS_amx ${INFERKIT_ISA_FLAGS_avx512} -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16)
  # GCC 10 and assemblers of its time do not know the tiles of AMX.
  include(CheckCXXSourceCompiles)
  set(CMAKE_REQUIRED_FLAGS "-mamx-tile -mamx-int8 -mamx-bf16")
  check_cxx_source_compiles("int main() { asm volatile(\"tilerelease\"); }" INFERKIT_HAS_AMX)
  unset(CMAKE_REQUIRED_FLAGS)
  if(INFERKIT_HAS_AMX)
    target_compile_definitions(inferkit_flags INTERFACE INFERKIT_HAS_AMX)
  else()
    list(REMOVE_ITEM INFERKIT_ISA_TIERS amx)
  endif()
else()
  set(INFERKIT_ISA_TIERS baseline)
endif()

# Innermost loops that hold all their sums in registers: GCC's allocator looks at a loop by itself only if it takes the
# loop for one of high pressure, and without this keeps the rows of B of some tiles on the stack (GCC 12: those of 4 x 3,
# 6 x 2 and 7 x 2, which take up to twice as long).
set(INFERKIT_KERNEL_FLAGS $<$<CXX_COMPILER_ID:GNU>:-fira-region=all>)

# Takes the kernels of all tiers out of `files` and compiles those of this target, each tier as a library of objects of
# its own; `out` gets what is left, and the objects.
function(inferkit_compile_tiers out)
  list(JOIN INFERKIT_X86_TIERS "|" tiers)
  set(rest ${ARGN})
  list(FILTER rest EXCLUDE REGEX "/(baseline|${tiers})\\.cc$")
  foreach(tier ${INFERKIT_ISA_TIERS})
    set(files ${ARGN})
    list(FILTER files INCLUDE REGEX "/${tier}\\.cc$")
    add_library(inferkit_kernels_${tier} OBJECT ${files})
    target_link_libraries(inferkit_kernels_${tier} PRIVATE inferkit_flags)
    if(INFERKIT_ISA_FLAGS_${tier})
      target_compile_options(inferkit_kernels_${tier} PRIVATE ${INFERKIT_KERNEL_FLAGS} ${INFERKIT_ISA_FLAGS_${tier}})
    endif()
    inferkit_precompile(inferkit_kernels_${tier} <kernels/cpu/intrinsics.h>)
    list(APPEND rest $<TARGET_OBJECTS:inferkit_kernels_${tier}>)
  endforeach()
  # Of ways of which one is chosen all are computed, in vectors: no one looks at what floating-point traps would see.
  set(vmath ${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cpu/vmath)
  set_source_files_properties(${vmath}/baseline.cc ${vmath}/avx2.cc ${vmath}/avx512.cc
                              PROPERTIES COMPILE_OPTIONS -fno-trapping-math)
  # Of 16 lanes, four registers each: -O3 takes half as long again to compile, and the code is no faster.
  if(avx2 IN_LIST INFERKIT_ISA_TIERS)
    set_source_files_properties(${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cpu/row/baseline.cc
                                PROPERTIES COMPILE_OPTIONS "$<$<CONFIG:Release>:-O2>")
  endif()
  set(${out} ${rest} PARENT_SCOPE)
endfunction()
