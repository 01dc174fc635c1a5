#define INFERKIT_TIER avx512
#include "kernels/cpu/row/row_impl.h"
