#define INFERKIT_TIER avx512
#include "kernels/cpu/half/half_impl.h"
