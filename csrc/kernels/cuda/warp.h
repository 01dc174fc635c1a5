// What kernels share in which a warp takes a row, several of them in a block.
#pragma once
#include "kernels/cuda/platform.h"
#include "kernels/cuda/rows.h"

namespace inferkit::kernels::cuda {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kWholeWarp = ~0u;

INFERKIT_DEVICE int lane_of() { return static_cast<int>(threadIdx.x) % kWarp; }
/// The row of this warp, and how many there are at once.
INFERKIT_DEVICE int64_t first_row() { return int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / kWarp; }
INFERKIT_DEVICE int64_t row_step() { return int64_t{gridDim.x} * kRowsOfBlock; }
/// The value of the lane whose number differs by `with`.
INFERKIT_DEVICE int64_t from_partner(int64_t v, int with) {
  return static_cast<int64_t>(__shfl_xor_sync(kWholeWarp, static_cast<long long>(v), with));
}

}  // namespace
}  // namespace inferkit::kernels::cuda
