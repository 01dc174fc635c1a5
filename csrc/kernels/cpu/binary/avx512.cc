#define INFERKIT_TIER avx512
#include "kernels/cpu/binary/binary_impl.h"
