#define INFERKIT_TIER bf16
#include "kernels/cpu/gemm_bf16/gemm_bf16_impl.h"
