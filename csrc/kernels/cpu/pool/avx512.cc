#define INFERKIT_TIER avx512
#include "kernels/cpu/pool/pool_impl.h"
