#define INFERKIT_TIER avx512
#include "kernels/cpu/gemm_bf16/gemm_bf16_impl.h"
