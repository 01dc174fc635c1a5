#include "engine/ops/common/gelu_half.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

#include "kernels/cpu/vmath/vmath.h"

namespace inferkit {
namespace {

constexpr int64_t kBlock = 256;
constexpr float kTail = -1;       // from here on down 1 + erf(x / sqrt 2) cancels
constexpr float kVanished = -30;  // Gelu of less is 0 in float

/// y = kernel(x), but tail(x, y, n) below kTail, for a block of at most kBlock elements.
template <class Tail>
void with_tail(kernels::Unary kernel, const float* x, float* y, int64_t n, Tail&& tail) {
  float kept[kBlock], low[kBlock];
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t count = std::min(kBlock, n - first);
    std::copy(x + first, x + first + count, kept);
    kernels::unary_fn(kernel)(kept, y + first, count, 0, 0);
    if (std::none_of(kept, kept + count, [](float v) { return v < kTail; })) continue;
    for (int64_t i = 0; i < count; ++i) low[i] = kept[i] < kTail ? std::max(kept[i], kVanished) : kTail;
    tail(low, count);
    for (int64_t i = 0; i < count; ++i) y[first + i] = kept[i] < kTail ? low[i] : y[first + i];
  }
}

}  // namespace

void gelu_half(const float* x, float* y, int64_t n, float, float) {
  // x/2 erfc(z) with z = -x / sqrt 2, and erfc(z) = t exp(-z^2 + p(t)) with t = 1 / (1 + z/2): Chebyshev's fit of
  // Press et al., Numerical Recipes, 6.2, which is within 1.2e-7 of the value.
  with_tail(kernels::Unary::kGelu, x, y, n, [](float* v, int64_t count) {
    constexpr float kFit[] = {-1.26551223f, 1.00002368f,  0.37409196f, 0.09678418f,  -0.18628806f,
                              0.27886807f,  -1.13520398f, 1.48851587f, -0.82215223f, 0.17087277f};
    float factor[kBlock];
    for (int64_t i = 0; i < count; ++i) {
      const float z = v[i] * -0.70710678f, t = 1 / (1 + 0.5f * z);
      float p = 0;
      for (size_t k = std::size(kFit); k-- > 0;) p = p * t + kFit[k];
      factor[i] = 0.5f * v[i] * t;
      v[i] = p - z * z;
    }
    kernels::unary_fn(kernels::Unary::kExp)(v, v, count, 0, 0);
    for (int64_t i = 0; i < count; ++i) v[i] *= factor[i];
  });
}

void gelu_tanh_half(const float* x, float* y, int64_t n, float, float) {
  with_tail(kernels::Unary::kGeluTanh, x, y, n, [](float* v, int64_t count) {  // x sigmoid(2 u)
    float kept[kBlock];
    std::copy(v, v + count, kept);
    for (int64_t i = 0; i < count; ++i) v[i] *= 2 * (0.79788456f + 0.035677408f * v[i] * v[i]);
    kernels::unary_fn(kernels::Unary::kSigmoid)(v, v, count, 0, 0);
    for (int64_t i = 0; i < count; ++i) v[i] *= kept[i];
  });
}

}  // namespace inferkit
