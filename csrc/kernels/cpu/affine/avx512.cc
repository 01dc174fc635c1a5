#define INFERKIT_TIER avx512
#include "kernels/cpu/affine/affine_impl.h"
