#define INFERKIT_TIER avx2
#include "kernels/cpu/affine/affine_impl.h"
