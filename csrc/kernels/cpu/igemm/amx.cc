#define INFERKIT_TIER amx
#include "kernels/cpu/igemm/tiles_impl.h"
