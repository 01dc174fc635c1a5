#define INFERKIT_TIER avx2
#include "kernels/cpu/recurrent/recurrent_impl.h"
