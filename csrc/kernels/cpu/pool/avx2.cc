#define INFERKIT_TIER avx2
#include "kernels/cpu/pool/pool_impl.h"
