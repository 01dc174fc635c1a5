#define INFERKIT_TIER baseline
#include "kernels/cpu/vmath/vmath_impl.h"
