#define INFERKIT_TIER baseline
#include "kernels/cpu/affine/affine_impl.h"
