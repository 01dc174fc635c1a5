#define INFERKIT_TIER avx512
#include "kernels/cpu/gemm/gemm_impl.h"
