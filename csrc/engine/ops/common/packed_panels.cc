#include "engine/ops/common/packed_panels.h"

#include "kernels/cpu/gemm64/gemm64.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "kernels/cpu/half/half.h"

namespace inferkit {
namespace {

/// Elements [first, first + n) of a constant, whose halves are widened into `room`.
const float* as_elements(const Tensor& t, int64_t first, int64_t n, std::vector<float>& room) {
  if (t.dtype == DType::kF32) return t.as<float>() + first;
  room.resize(static_cast<size_t>(n));
  t.dtype == DType::kF16 ? kernels::widen(t.as<Half>() + first, room.data(), n)
                         : kernels::widen(t.as<BFloat16>() + first, room.data(), n);
  return room.data();
}

const double* as_elements(const Tensor& t, int64_t first, int64_t, std::vector<double>&) {
  return t.as<double>() + first;
}

/// T is what products compute in.
template <class T>
Ref panels_of(LowerContext& c, const Tensor& constant, const Panels& p) {
  const auto each = static_cast<int64_t>(kernels::GemmOf<T>::packed_elements(p.k, p.n));
  // A panel is as wide in every tier.
  using Element = typename kernels::GemmArgsOf<T>::Element;
  using Packed = typename kernels::GemmArgsOf<T>::Packed;
  constexpr int64_t kPer = kernels::Operands<T>::kPerPacked;  // the type of an element says what they are
  const Packing packing{cat("panels-", p.transposed ? "nk-" : "kn-", p.first, "-", p.k, "-", p.n),
                        kDTypeOf<T>,
                        p.matrices * each * kPer,
                        {}};
  return c.packed({&constant}, packing, [&](void* to) {
    std::vector<Element> room;
    for (int64_t i = 0; i < p.matrices; ++i) {
      const Element* from = as_elements(constant, p.first + i * p.k * p.n, p.k * p.n, room);
      Packed* target = static_cast<Packed*>(to) + i * each;
      p.transposed ? kernels::pack_b_transposed(from, p.k, p.k, p.n, target)
                   : kernels::pack_b(from, p.n, p.k, p.n, target);
    }
  });
}

}  // namespace

Ref packed_panels(LowerContext& c, const Tensor& constant, const Panels& panels) {
  return constant.dtype == DType::kF64 ? panels_of<double>(c, constant, panels) : panels_of<float>(c, constant, panels);
}

Ref packed_panels_bf16(LowerContext& c, const Tensor& constant, const Panels& panels) {
  return panels_of<BFloat16>(c, constant, panels);
}

}  // namespace inferkit
