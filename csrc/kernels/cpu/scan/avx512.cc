#define INFERKIT_TIER avx512
#include "kernels/cpu/scan/scan_impl.h"
