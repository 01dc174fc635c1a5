#define INFERKIT_TIER avx512
#include "kernels/cpu/igemm/igemm_impl.h"
