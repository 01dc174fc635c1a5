#define INFERKIT_TIER baseline
#include "kernels/cpu/gemm64/gemm64_impl.h"
