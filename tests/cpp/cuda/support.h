// What the tests of CUDA kernels share: launches on the host for many seeds, and the tiers whose bits they must give.
#pragma once
#include <vector>

#include "../kernels/support.h"
#include "base/cat.h"
#include "kernels/cuda/kernels.h"
#include "kernels_on_host.h"
#include "platform/float_environment.h"
#include "platform/isa.h"
#include "test.h"

namespace inferkit::testing {

/// The tiers whose bits CUDA has: those that fuse a product with a sum, and flush what x86's minimum and maximum do.
inline std::vector<Isa> fusing_isas() {
  std::vector<Isa> out;
#if defined(__x86_64__)
  for (const Isa isa : available_isas()) {
    if (isa != Isa::kBaseline) out.push_back(isa);
  }
#endif
  if (out.empty()) skipped() = "this machine has neither the AVX2 nor the AVX-512 tier";
  return out;
}

inline constexpr uint64_t kSeeds[] = {1, 2, 3};

/// Where threads do not meet they may read places before they are there, and then from these: it ends under ASan.
inline bool places_may_be_wrong() {
#if defined(__SANITIZE_ADDRESS__)
  skipped() = "without a barrier it reads from places that are not there yet";
#endif
  return skipped().empty();
}

/// Bytes that are as large as they say, so that a sanitizer sees what lies beyond; aligned as device memory is.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t n, T value = {}) : values_(n, value) {}
  explicit DeviceArray(const std::vector<T>& values) : values_(values) {}
  T* data() { return values_.data(); }
  const T* data() const { return values_.data(); }
  size_t size() const { return values_.size(); }
  T operator[](size_t i) const { return values_[i]; }

 private:
  std::vector<T> values_;
};

inline kernels::cuda::Nest<1> line(int64_t n, int64_t stride = 1) {
  kernels::cuda::Nest<1> out{};
  out.n = n;
  out.rank = 1;
  out.dims[0] = n;
  out.strides[0][0] = stride;
  return out;
}

/// Values of all sizes, with what is special among them: infinities, NaN, both zeros, subnormals.
inline std::vector<float> wild_floats(size_t n, uint32_t seed) {
  std::mt19937 draw(seed);
  std::vector<float> out(n);
  const float special[] = {0.0f,    -0.0f,     INFINITY,   -INFINITY, NAN,    1e-40f,
                           -1e-42f, 0x1p-126f, -0x1p-126f, 88.8f,     -104.0f};
  for (float& v : out) {
    const uint32_t word = draw();
    if (word % 8 == 0) {
      v = special[draw() % std::size(special)];
    } else if (word % 8 < 4) {
      v = static_cast<float>(static_cast<int32_t>(draw())) * 0x1p-27f;
    } else {
      std::memcpy(&v, &word, sizeof(v));
    }
  }
  return out;
}

/// Reports the first place where the two differ.
inline bool same_values(const float* got, const float* want, size_t n, const std::string& what) {
  for (size_t i = 0; i < n; ++i) {
    if (same(got[i], want[i])) continue;
    fail(__FILE__, __LINE__, cat(what, ": element ", i, " of ", n, " is ", got[i], " and not ", want[i]));
    return false;
  }
  return true;
}

}  // namespace inferkit::testing
