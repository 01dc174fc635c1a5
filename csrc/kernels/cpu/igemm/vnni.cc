#define INFERKIT_TIER vnni
#include "kernels/cpu/igemm/igemm_impl.h"
