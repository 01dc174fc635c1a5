#define INFERKIT_TIER avx2
#include "kernels/cpu/igemm/igemm_impl.h"
