#define INFERKIT_TIER amx
#include "kernels/cpu/gemm_bf16/tiles_impl.h"
