#define INFERKIT_TIER avx2
#include "kernels/cpu/row/row_impl.h"
