#define INFERKIT_TIER baseline
#include "kernels/cpu/quantize/quantize_impl.h"
