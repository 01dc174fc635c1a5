#define INFERKIT_TIER avx512
#include "kernels/cpu/conv/conv_impl.h"
