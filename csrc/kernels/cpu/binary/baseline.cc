#define INFERKIT_TIER baseline
#include "kernels/cpu/binary/binary_impl.h"
