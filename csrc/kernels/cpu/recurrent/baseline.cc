#define INFERKIT_TIER baseline
#include "kernels/cpu/recurrent/recurrent_impl.h"
