#define INFERKIT_TIER baseline
#include "kernels/cpu/half/half_impl.h"
