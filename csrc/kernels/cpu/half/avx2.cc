#define INFERKIT_TIER avx2
#include "kernels/cpu/half/half_impl.h"
