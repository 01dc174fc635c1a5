#define INFERKIT_TIER avx2
#include "kernels/cpu/gemm/gemm_impl.h"
