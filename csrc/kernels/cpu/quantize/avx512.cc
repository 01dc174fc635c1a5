#define INFERKIT_TIER avx512
#include "kernels/cpu/quantize/quantize_impl.h"
