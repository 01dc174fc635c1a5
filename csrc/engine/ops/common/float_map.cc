#include "engine/ops/common/float_map.h"

#include "engine/ops/parallel.h"
#include "kernels/cpu/half/half.h"

namespace inferkit {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements worth a thread

struct Params {
  kernels::UnaryFn fn;
  int64_t n;
  float alpha, beta;
};

void run_f32(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const Params*>(params);
  const auto* x = reinterpret_cast<const float*>(io[0]);
  auto* y = reinterpret_cast<float*>(io[1]);
  for_ranges(context, p.n, kGrain,
             [&](int64_t first, int64_t last) { p.fn(x + first, y + first, last - first, p.alpha, p.beta); });
}

template <class T>
void run_half(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const Params*>(params);
  const T* x = reinterpret_cast<const T*>(io[0]);
  T* y = reinterpret_cast<T*>(io[1]);
  for_ranges(context, p.n, kGrain, [&](int64_t first, int64_t last) {
    constexpr int64_t kBlock = 256;
    float block[kBlock];
    for (int64_t at = first; at < last; at += kBlock) {
      const int64_t n = std::min(kBlock, last - at);
      kernels::widen(x + at, block, n);
      p.fn(block, block, n, p.alpha, p.beta);
      kernels::narrow(block, y + at, n);
    }
  });
}

}  // namespace

bool lower_float_map(LowerContext& c, kernels::UnaryFn fn, float alpha, float beta, double nanos) {
  const DType dtype = c.input(0).dtype;
  if (dtype != DType::kF32 && dtype != DType::kF16 && dtype != DType::kBF16) return false;
  const StepFn run = dtype == DType::kF32 ? run_f32 : dtype == DType::kF16 ? run_half<Half> : run_half<BFloat16>;
  const int64_t n = c.output(0).shape.elements();
  c.in_place(0, 0);
  c.step(run, Params{fn, n, alpha, beta}, {c.in(0), c.out(0)},
         static_cast<double>(n) * (dtype == DType::kF32 ? nanos : nanos + 0.1));
  return true;
}

}  // namespace inferkit
