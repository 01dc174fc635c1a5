#define INFERKIT_TIER baseline
#include "kernels/cpu/gemm/gemm_impl.h"
