#include "kernels/cuda/arg.h"
#include "kernels/cuda/platform.h"
#include "kernels/cuda/warp.h"

namespace inferkit::kernels::cuda {
namespace {

/// An integer that compares as the element does: floating_key of engine/ops/common/sort_keys.h.
INFERKIT_DEVICE int64_t key_at(const ArgParams& p, int64_t i) {
  const int64_t flip = p.least ? -1 : 0;
  if (p.type == Element::kI32) return static_cast<const int32_t*>(p.x)[i] ^ flip;
  if (p.type == Element::kI64) return static_cast<const int64_t*>(p.x)[i] ^ flip;
  const int32_t bits = __float_as_int(__fadd_rn(static_cast<const float*>(p.x)[i], 0.0f));
  if ((bits & INT32_MAX) > 0x7f800000) return INT64_MAX;
  return int64_t{bits ^ ((bits >> 31) & INT32_MAX)} ^ flip;
}

struct Found {
  int64_t key, place;
};
INFERKIT_DEVICE bool is_better(const Found& a, const Found& b, bool last) {
  if (a.key != b.key) return a.key > b.key;
  return last ? a.place > b.place : a.place < b.place;
}

}  // namespace

INFERKIT_KERNEL(arg_rows, ArgParams, 128, 4) {
  const int lane = lane_of();
  for (int64_t row = first_row(); row < p.outer * p.inner; row += row_step()) {
    const int64_t at = row / p.inner * p.n * p.inner + row % p.inner;
    // Lanes beyond the row begin with its first element, which changes nothing.
    const int64_t start = lane < p.n ? lane : 0;
    Found best{key_at(p, at + start * p.inner), start};
    for (int64_t i = start + kWarp; i < p.n; i += kWarp) {
      const Found next{key_at(p, at + i * p.inner), i};
      if (is_better(next, best, p.last)) best = next;
    }
    for (int with = kWarp / 2; with > 0; with /= 2) {
      const Found other{from_partner(best.key, with), from_partner(best.place, with)};
      if (is_better(other, best, p.last)) best = other;
    }
    if (lane == 0) p.y[row] = best.place;
  }
}

}  // namespace inferkit::kernels::cuda
