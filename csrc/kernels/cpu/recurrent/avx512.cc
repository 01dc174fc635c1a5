#define INFERKIT_TIER avx512
#include "kernels/cpu/recurrent/recurrent_impl.h"
