// Matrix products as part of other lowerings.
#pragma once
#include "device/program.h"
#include "kernels/cuda/gemm.h"

namespace inferkit::cuda {

/// One product of contiguous matrices, B [n, k] where `transposed`; `chunk` is left to set.
kernels::cuda::GemmParams plain_product(int64_t m, int64_t n, int64_t k, bool transposed);
/// io: c, a, b, bias (may be null).
void launch_product(kernels::cuda::GemmParams p, std::byte* const* io, const ExecContext& context);

}  // namespace inferkit::cuda
