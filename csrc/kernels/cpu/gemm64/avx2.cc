#define INFERKIT_TIER avx2
#include "kernels/cpu/gemm64/gemm64_impl.h"
