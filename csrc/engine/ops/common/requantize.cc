#include "engine/ops/common/requantize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/ops/common/quantization.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/quantize/quantize.h"

namespace inferkit {
namespace {

constexpr int64_t kGrain = 1 << 16;  // sums worth a thread

/// The factors of some channels. Where the product with the least and that with the largest of their scales are normal
/// numbers, so are all, and none has to be looked at.
class Factors {
 public:
  Factors(const float* right, int64_t stride, int64_t n) : right_(right), stride_(stride), n_(n) {
    for (int64_t c = 0; c < n; ++c) {
      const float size = std::fabs(right[c * stride]);
      least_ = std::min(least_, size);
      most_ = std::max(most_, size);
    }
  }
  void fill(float left, float of_result, float* factors) const {
    if (std::isnormal(left * least_) && std::isnormal(left * most_)) {
      for (int64_t c = 0; c < n_; ++c) factors[c] = left * right_[c * stride_] / of_result;
    } else {
      for (int64_t c = 0; c < n_; ++c) factors[c] = requantizing_factor(left, right_[c * stride_], of_result);
    }
  }

 private:
  const float* right_;
  int64_t stride_, n_;
  float least_ = std::numeric_limits<float>::infinity(), most_ = 0;
};

template <class Y>
void requantize_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const RequantizeParams*>(params);
  auto* y = reinterpret_cast<Y*>(io[0]);
  const auto* sums = reinterpret_cast<const int32_t*>(io[1]);
  const auto* left = reinterpret_cast<const float*>(io[2]);
  const auto* right = reinterpret_cast<const float*>(io[3]);
  const float scale = *reinterpret_cast<const float*>(io[4]);
  const int32_t zero = io[5] ? int32_t{*reinterpret_cast<const Y*>(io[5])} : 0;
  const auto* bias = reinterpret_cast<const int32_t*>(io[6]);
  const auto& kernels = kernels::quantize_kernels().bytes<Y>();
  const auto left_of = [&](int64_t o) { return left[o % p.rows * p.left_stride]; };
  if (p.inner != 1) {  // a factor for each run
    for_ranges(context, p.outer * p.channels * p.inner, kGrain, [&](int64_t first, int64_t last) {
      for (int64_t i = first, n = 0; i < last; i += n) {
        const int64_t run = i / p.inner, c = run % p.channels;
        n = std::min(last, (run + 1) * p.inner) - i;
        const float factor = requantizing_factor(left_of(run / p.channels), right[c * p.right_stride], scale);
        kernels.requantize(sums + i, y + i, n, factor, bias ? bias[c] : 0, zero);
      }
    });
    return;
  }
  // A factor for each channel: as many rows as have the same ones go by before the next block of channels.
  for_ranges(context, p.outer, kGrain / std::max<int64_t>(p.channels, 1), [&](int64_t first, int64_t last) {
    constexpr int64_t kBlock = 256;
    float factors[kBlock];
    for (int64_t at = 0; at < p.channels; at += kBlock) {
      const int64_t n = std::min(kBlock, p.channels - at);
      const Factors of_block(right + at * p.right_stride, p.right_stride, n);
      for (int64_t o = first; o < last; ++o) {
        if (o == first || p.left_stride != 0) {
          of_block.fill(left_of(o), scale, factors);
        }
        const int64_t i = o * p.channels + at;
        kernels.requantize_each(sums + i, y + i, n, factors, bias ? bias + at : nullptr, zero);
      }
    }
  });
}

}  // namespace

void lower_requantize(LowerContext& c, const RequantizeParams& p, Ref out, Ref sums, Ref left_scale, Ref right_scale,
                      Ref scale, Ref zero, Ref bias) {
  const StepFn fn = dispatch<kByteTypes>(c.output(0).dtype, []<class Y>() -> StepFn { return requantize_step<Y>; });
  RequantizeParams q = p;
  if (!bias.valid() && q.right_stride == 0) {  // all channels are alike, and all rows perhaps
    q.inner = std::exchange(q.channels, 1) * q.inner;
    if (q.left_stride == 0) q.inner = std::exchange(q.outer, 1) * q.inner;
  }
  c.step(fn, q, {out, sums, left_scale, right_scale, scale, zero, bias},
         multiplied(p.outer, p.channels, p.inner) * 0.2);
}

}  // namespace inferkit
