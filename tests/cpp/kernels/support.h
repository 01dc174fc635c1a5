// What the kernel tests share: seeded data, buffers with guards, distances in units in the last place.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "platform/isa.h"
#include "test.h"

namespace inferkit::testing {

inline std::vector<float> random_floats(size_t n, uint32_t seed, float low = -1, float high = 1) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> draw(low, high);
  std::vector<float> out(n);
  for (float& v : out) v = draw(engine);
  return out;
}

/// n floats that begin 4 bytes past an aligned address, between guards that must not change.
class Guarded {
 public:
  explicit Guarded(size_t n) : n_(n), all_(n + 2 * kGuard + 1, kMark) {}
  float* data() { return all_.data() + kGuard + 1; }
  float operator[](size_t i) const { return all_[kGuard + 1 + i]; }
  bool intact() const {
    for (size_t i = 0; i < all_.size(); ++i) {
      if ((i <= kGuard || i > kGuard + n_) && all_[i] != kMark) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = 32;
  static constexpr float kMark = -12345.5f;
  size_t n_;
  std::vector<float> all_;
};

inline uint32_t bits(float v) {
  uint32_t out;
  std::memcpy(&out, &v, sizeof(out));
  return out;
}
/// Equal to the bit, where every NaN is the same.
inline bool same(float a, float b) { return bits(a) == bits(b) || (std::isnan(a) && std::isnan(b)); }
inline bool same(const float* a, const float* b, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    if (!same(a[i], b[i])) return false;
  }
  return true;
}

/// The tiers whose bits are to be those of AVX2.
inline std::vector<Isa> tiers_above_avx2() {
  std::vector<Isa> tiers = available_isas();
  std::erase_if(tiers, [](Isa isa) { return isa <= Isa::kAvx2; });
  return tiers;
}

/// How far `got` is from `want`, in units of the last place of a float near `want`.
inline double ulps(float got, double want) {
  if (std::isnan(want)) return std::isnan(got) ? 0 : INFINITY;
  const float rounded = static_cast<float>(want);
  if (std::isinf(rounded) || std::isinf(got)) {
    return got == rounded                                                               ? 0
           : std::isinf(rounded) && std::fabs(got) == std::numeric_limits<float>::max() ? 1
                                                                                        : INFINITY;
  }
  const int exponent = std::max(std::ilogb(want == 0 ? 1e-300 : want), -126);
  return std::fabs(got - want) / std::ldexp(1.0, exponent - 23);
}

}  // namespace inferkit::testing
