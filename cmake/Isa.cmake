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

# Options for some families' kernels of some tiers, beside those of the tier.
function(inferkit_kernel_options families tiers)
  foreach(family ${families})
    foreach(tier ${tiers})
      set_property(SOURCE ${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cpu/${family}/${tier}.cc
                   APPEND PROPERTY COMPILE_OPTIONS ${ARGN})
    endforeach()
  endforeach()
endfunction()

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
  inferkit_kernel_options("vmath" "avx512;avx2;baseline" -fno-trapping-math)
  # -O3 takes these longer to compile, and their code is no faster: products, whose loops are written out, and those of
  # the baseline, where sixteen lanes are four registers. Measured against it: pooling and elementary functions of long
  # vectors take 5 to 7% longer at -O2, depthwise convolutions 14%, products of bytes up to 34%.
  if(avx2 IN_LIST INFERKIT_ISA_TIERS)
    inferkit_kernel_options("gemm;gemm64;gemm_bf16" "avx512;avx2;baseline" $<$<CONFIG:Release>:-O2>)
    inferkit_kernel_options("conv;pool;row;vmath" "baseline" $<$<CONFIG:Release>:-O2>)
  endif()
  set(${out} ${rest} PARENT_SCOPE)
endfunction()
