#include "engine/ops/common/requantize.h"

#include "engine/ops/common/quantization.h"

namespace inferkit {
namespace {

template <class Y>
void requantize_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const RequantizeParams*>(params);
  auto* y = reinterpret_cast<Y*>(io[0]);
  const auto* sums = reinterpret_cast<const int32_t*>(io[1]);
  const auto* left = reinterpret_cast<const float*>(io[2]);
  const auto* right = reinterpret_cast<const float*>(io[3]);
  const float scale = *reinterpret_cast<const float*>(io[4]);
  const int32_t zero = io[5] ? int32_t{*reinterpret_cast<const Y*>(io[5])} : 0;
  const auto* bias = reinterpret_cast<const int32_t*>(io[6]);
  for (int64_t o = 0; o < p.outer; ++o) {
    for (int64_t c = 0; c < p.channels; ++c) {
      const float factor = left[o % p.rows * p.left_stride] * right[c * p.right_stride] / scale;
      const uint32_t addend = bias ? static_cast<uint32_t>(bias[c]) : 0;
      for (int64_t i = 0; i < p.inner; ++i, ++sums, ++y) {
        const auto sum = static_cast<int32_t>(static_cast<uint32_t>(*sums) + addend);
        *y = saturate<Y>(static_cast<float>(sum) * factor, zero);
      }
    }
  }
}

}  // namespace

void lower_requantize(LowerContext& c, const RequantizeParams& p, Ref out, Ref sums, Ref left_scale, Ref right_scale,
                      Ref scale, Ref zero, Ref bias) {
  const StepFn fn = dispatch<kByteTypes>(c.output(0).dtype, []<class Y>() -> StepFn { return requantize_step<Y>; });
  c.step(fn, p, {out, sums, left_scale, right_scale, scale, zero, bias},
         static_cast<double>(p.outer * p.channels * p.inner) * 2);
}

}  // namespace inferkit
