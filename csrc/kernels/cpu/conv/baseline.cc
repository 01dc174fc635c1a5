#define INFERKIT_TIER baseline
#include "kernels/cpu/conv/conv_impl.h"
