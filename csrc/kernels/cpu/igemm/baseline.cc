#define INFERKIT_TIER baseline
#include "kernels/cpu/igemm/igemm_impl.h"
