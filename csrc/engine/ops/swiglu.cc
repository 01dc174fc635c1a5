// SwiGLU: silu(a) * b, two tensors of one shape.
#include <cmath>

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/half/half.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit {
namespace {

constexpr int64_t kBlock = 256;

struct SwigluParams {
  int64_t count;
  float alpha;
};

void multiply_silu(const double* a, const double* b, double* y, int64_t n, double alpha) {
  for (int64_t i = 0; i < n; ++i) y[i] = a[i] / (1 + std::exp(-alpha * a[i])) * b[i];
}
void multiply_silu(const float* a, const float* b, float* y, int64_t n, float alpha) {
  float gate[kBlock];
  kernels::unary_fn(kernels::Unary::kSilu)(a, gate, n, alpha, 0);
  for (int64_t i = 0; i < n; ++i) y[i] = gate[i] * b[i];
}
template <class T>
  requires kIsHalfType<T>
void multiply_silu(const T* a, const T* b, T* y, int64_t n, float alpha) {
  float left[kBlock], right[kBlock];
  kernels::widen(a, left, n);
  kernels::widen(b, right, n);
  multiply_silu(left, right, left, n, alpha);
  kernels::narrow(left, y, n);
}

/// io: y, a, b.
template <class T>
void swiglu_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const SwigluParams*>(params);
  const auto* a = reinterpret_cast<const T*>(io[1]);
  const auto* b = reinterpret_cast<const T*>(io[2]);
  auto* y = reinterpret_cast<T*>(io[0]);
  for_ranges(context, p.count, 1 << 15, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i += kBlock) {
      multiply_silu(a + i, b + i, y + i, std::min(kBlock, last - i), p.alpha);
    }
  });
}

void infer_swiglu(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  require_same_type(c, 0, 1);
  if (c.input(0).shape != c.input(1).shape) {
    c.fail(cat("shapes ", c.input(0).shape.str(), " and ", c.input(1).shape.str(), " differ"));
  }
  c.set_output(0, c.input(0).dtype, c.input(0).shape);
}

void lower_swiglu(LowerContext& c) {
  const int64_t n = c.input(0).shape.elements();
  const StepFn fn = dispatch<kFloatTypes>(c.input(0).dtype, []<class T>() -> StepFn { return swiglu_step<T>; });
  c.in_place(0, 0);
  c.step(fn, SwigluParams{n, c.attr_float("alpha", 1)}, {c.out(0), c.in(0), c.in(1)}, static_cast<double>(n) * 0.6);
}

}  // namespace

void register_swiglu(OpRegistry& r) {
  r.add({.name = "SwiGLU",
         .since = 28,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer_swiglu,
         .mixed_axes =
             [](const NodeContext& c, size_t i) {
               return one_axis(std::max<int64_t>(static_cast<int64_t>(c.input(i).shape.rank()) - 1, 0));
             }},
        lower_swiglu);
}

}  // namespace inferkit
