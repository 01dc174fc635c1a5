#define INFERKIT_TIER avx2
#include "kernels/cpu/binary/binary_impl.h"
