#define INFERKIT_TIER avx512
#include "kernels/cpu/gemm64/gemm64_impl.h"
