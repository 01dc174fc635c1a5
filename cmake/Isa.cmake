# The one place that holds instruction-set flags. Files named <tier>.cc below csrc/kernels/cpu are compiled for
# that tier; everything else is compiled for the baseline.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(INFERKIT_ISA_TIERS baseline avx2 avx512 vnni bf16)
  target_compile_options(inferkit_flags INTERFACE -march=x86-64-v2)
  set(INFERKIT_ISA_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2)
  set(INFERKIT_ISA_FLAGS_avx512 ${INFERKIT_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
                                -mprefer-vector-width=512)
  set(INFERKIT_ISA_FLAGS_vnni ${INFERKIT_ISA_FLAGS_avx512} -mavx512vnni)
  set(INFERKIT_ISA_FLAGS_bf16 ${INFERKIT_ISA_FLAGS_avx512} -mavx512bf16)
else()
  set(INFERKIT_ISA_TIERS baseline)
endif()

# Innermost loops that hold all their sums in registers: GCC's allocator looks at a loop by itself only if it takes the
# loop for one of high pressure, and without this keeps the rows of B of some tiles on the stack (GCC 12: those of 4 x 3,
# 6 x 2 and 7 x 2, which take up to twice as long).
set(INFERKIT_KERNEL_FLAGS $<$<CXX_COMPILER_ID:GNU>:-fira-region=all>)

# Adds the flags of its tier to each kernel file of `files`, and drops the files of tiers this target lacks.
function(inferkit_apply_isa out)
  set(kept)
  foreach(file ${ARGN})
    get_filename_component(tier ${file} NAME_WE)
    if(tier MATCHES "^(avx2|avx512|vnni|bf16)$")
      if(NOT tier IN_LIST INFERKIT_ISA_TIERS)
        continue()
      endif()
      set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS
                                  "${INFERKIT_KERNEL_FLAGS};${INFERKIT_ISA_FLAGS_${tier}}")
    endif()
    # Of 16 lanes, four registers each: -O3 takes half as long again to compile, and the code is no faster.
    if(tier STREQUAL "baseline" AND file MATCHES "/row/" AND avx2 IN_LIST INFERKIT_ISA_TIERS)
      set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "$<$<CONFIG:Release>:-O2>")
    endif()
    list(APPEND kept ${file})
  endforeach()
  set(${out} ${kept} PARENT_SCOPE)
endfunction()
