#define INFERKIT_TIER avx2
#include "kernels/cpu/vmath/vmath_impl.h"
