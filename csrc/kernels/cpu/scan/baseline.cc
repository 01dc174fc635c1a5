#define INFERKIT_TIER baseline
#include "kernels/cpu/scan/scan_impl.h"
