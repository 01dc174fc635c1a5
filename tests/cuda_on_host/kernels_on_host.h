// The kernels of csrc/kernels/cuda, compiled for the host.
#pragma once
#include <cstdint>

#include "kernels/cuda/kernels.h"
#include "launch.h"

namespace inferkit::cuda_on_host {

/// Runs a kernel in the floating-point environment that is set; `params` points to its struct. As launch().
void launch(kernels::cuda::Kernel kernel, const Grid& grid, const void* params);

}  // namespace inferkit::cuda_on_host
