#define INFERKIT_TIER baseline
#include "kernels/cpu/gemm_bf16/gemm_bf16_impl.h"
