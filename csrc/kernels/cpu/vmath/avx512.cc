#define INFERKIT_TIER avx512
#include "kernels/cpu/vmath/vmath_impl.h"
