#define INFERKIT_TIER avx2
#include "kernels/cpu/quantize/quantize_impl.h"
