#define INFERKIT_TIER avx2
#include "kernels/cpu/scan/scan_impl.h"
