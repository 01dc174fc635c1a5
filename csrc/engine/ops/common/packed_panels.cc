#include "engine/ops/common/packed_panels.h"

#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/half/half.h"

namespace inferkit {
namespace {

/// Elements [first, first + n) of a constant, whose halves are widened into `room`.
const float* as_floats(const Tensor& t, int64_t first, int64_t n, std::vector<float>& room) {
  if (t.dtype == DType::kF32) return t.as<float>() + first;
  room.resize(static_cast<size_t>(n));
  t.dtype == DType::kF16 ? kernels::widen(t.as<Half>() + first, room.data(), n)
                         : kernels::widen(t.as<BFloat16>() + first, room.data(), n);
  return room.data();
}

}  // namespace

Ref packed_panels(LowerContext& c, const Tensor& constant, const Panels& p) {
  const auto each = static_cast<int64_t>(kernels::packed_b_elements(p.k, p.n));
  // A panel is as wide in every tier.
  const Packing packing{
      cat("panels-", p.transposed ? "nk-" : "kn-", p.first, "-", p.k, "-", p.n), DType::kF32, p.matrices * each, {}};
  return c.packed({&constant}, packing, [&](void* to) {
    std::vector<float> room;
    for (int64_t i = 0; i < p.matrices; ++i) {
      const float* from = as_floats(constant, p.first + i * p.k * p.n, p.k * p.n, room);
      float* target = static_cast<float*>(to) + i * each;
      p.transposed ? kernels::pack_b_transposed(from, p.k, p.k, p.n, target)
                   : kernels::pack_b(from, p.n, p.k, p.n, target);
    }
  });
}

}  // namespace inferkit
