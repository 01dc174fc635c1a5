#define INFERKIT_TIER baseline
#include "kernels/cpu/pool/pool_impl.h"
