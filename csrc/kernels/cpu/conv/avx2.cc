#define INFERKIT_TIER avx2
#include "kernels/cpu/conv/conv_impl.h"
