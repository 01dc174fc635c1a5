#define INFERKIT_TIER avx2
#include "kernels/cpu/gemm_bf16/gemm_bf16_impl.h"
