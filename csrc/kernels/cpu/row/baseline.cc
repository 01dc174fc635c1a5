#define INFERKIT_TIER baseline
#include "kernels/cpu/row/row_impl.h"
