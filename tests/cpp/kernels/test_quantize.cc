#include <bit>
#include <cmath>
#include <tuple>

#include "kernels/cpu/quantize/quantize.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

// The definition, an element at a time.
template <class B>
B byte_of(float v, int32_t zero) {
  constexpr auto low = static_cast<float>(std::numeric_limits<B>::lowest());
  constexpr auto high = static_cast<float>(std::numeric_limits<B>::max());
  const float whole = std::rint(v) + static_cast<float>(zero);
  return static_cast<B>(whole > low ? (whole < high ? whole : high) : low);
}
template <class B>
int32_t at(const std::vector<B>& v, size_t i) {
  return v.empty() ? 0 : int32_t{v[i]};
}

/// Random numbers, every other one awkward: ties, ends of the range, huge, tiny, not a number.
std::vector<float> awkward(size_t n, uint32_t seed) {
  static const std::vector<float> kAwkward = {
      0.0f,        -0.0f,  0.5f,    1.5f,   2.5f,   -0.5f,   -1.5f,  127.5f,      126.5f,     -128.5f,
      -127.5f,     254.5f, 255.5f,  256.5f, 1e-45f, -1e-45f, 1e-38f, 0.49999997f, 8388609.0f, -8388607.5f,
      16777217.0f, 2.2e9f, -2.2e9f, 3e38f,  -3e38f, kInf,    -kInf,  kNan};
  std::vector<float> x = random_floats(n, seed, -300, 300);
  for (size_t i = seed % 2; i < n; i += 2) x[i] = kAwkward[(i / 2 + seed) % kAwkward.size()];
  return x;
}

template <class T>
std::vector<T> integers(size_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_int_distribution<int64_t> draw(std::numeric_limits<T>::lowest(), std::numeric_limits<T>::max());
  std::vector<T> out(n);
  for (T& v : out) v = static_cast<T>(draw(engine));
  return out;
}

/// n elements one past an aligned address, which a kernel must fill and not pass.
template <class T>
class Output {
 public:
  explicit Output(size_t n) : n_(n), all_(n + 66, T{77}) {}
  T* data() { return all_.data() + 33; }
  template <class Want>
  bool is(Want want) const {
    for (size_t i = 0; i < all_.size(); ++i) {
      const T expected = i < 33 || i >= 33 + n_ ? T{77} : want(i - 33);
      if (std::memcmp(&all_[i], &expected, sizeof(T)) != 0) return false;
    }
    return true;
  }

 private:
  size_t n_;
  std::vector<T> all_;
};

std::vector<size_t> lengths() {
  std::vector<size_t> out;
  for (size_t n = 0; n <= 70; ++n) out.push_back(n);
  out.insert(out.end(), {255, 1000, 4099});
  return out;
}

template <class B>
void check_bytes(const QuantizeKernels& kernels) {
  const ByteKernels<B>& k = kernels.bytes<B>();
  uint32_t seed = 0;
  for (const size_t size : lengths()) {
    const auto n = static_cast<int64_t>(size);
    const std::vector<float> x = awkward(size, ++seed);
    std::vector<float> scale = random_floats(size, seed + 1, 0.01f, 2);
    for (size_t i = 0; i < size; i += 3) scale[i] = i % 2 ? 1.0f : 0.5f;
    const std::vector<B> codes = integers<B>(size, seed + 2);
    const std::vector<int32_t> sums = integers<int32_t>(size, seed + 3), bias = integers<int32_t>(size, seed + 4);
    const float one = seed % 3 ? 0.37f : 1.0f;
    const int32_t zero = integers<B>(1, seed + 5)[0];
    std::vector<float> factor = random_floats(size, seed + 6, 0, 1e-6f);

    Output<B> y(size);
    k.quantize(x.data(), y.data(), n, one, zero);
    CHECK(y.is([&](size_t i) { return byte_of<B>(x[i] / one, zero); }));
    k.requantize(sums.data(), y.data(), n, 1e-7f, zero, zero);
    CHECK(y.is([&](size_t i) {
      const auto sum = static_cast<int32_t>(static_cast<uint32_t>(sums[i]) + static_cast<uint32_t>(zero));
      return byte_of<B>(static_cast<float>(sum) * 1e-7f, zero);
    }));
    // Whole floats, and their sum with a bias at either end of what they may be.
    std::vector<float> whole(size);
    for (size_t i = 0; i < size; ++i) whole[i] = static_cast<float>(sums[i] / 256);
    for (const int32_t added : {zero, 1 << 24, -(1 << 24), (1 << 24) - 1}) {
      k.requantize_whole(whole.data(), y.data(), n, 1e-5f, static_cast<float>(added), zero);
      CHECK(y.is([&](size_t i) {
        const int32_t sum = static_cast<int32_t>(whole[i]) + added;
        return byte_of<B>(static_cast<float>(sum) * 1e-5f, zero);
      }));
    }
    Output<float> back(size);
    k.dequantize(codes.data(), back.data(), n, one, zero);
    CHECK(back.is([&](size_t i) { return static_cast<float>(int32_t{codes[i]} - zero) * one; }));

    for (const bool shifted : {false, true}) {
      const std::vector<B> zeros = shifted ? integers<B>(size, seed + 7) : std::vector<B>();
      const B* const z = shifted && size ? zeros.data() : nullptr;
      k.quantize_each(x.data(), y.data(), n, scale.data(), z);
      CHECK(y.is([&](size_t i) { return byte_of<B>(x[i] / scale[i], at(zeros, i)); }));
      k.dequantize_each(codes.data(), back.data(), n, scale.data(), z);
      CHECK(back.is([&](size_t i) { return static_cast<float>(int32_t{codes[i]} - at(zeros, i)) * scale[i]; }));
      k.requantize_each(sums.data(), y.data(), n, factor.data(), shifted ? bias.data() : nullptr, zero);
      CHECK(y.is([&](size_t i) {
        const uint32_t addend = shifted ? static_cast<uint32_t>(bias[i]) : 0;
        return byte_of<B>(static_cast<float>(static_cast<int32_t>(static_cast<uint32_t>(sums[i]) + addend)) * factor[i],
                          zero);
      }));
    }
  }
}

/// Every byte with every zero point, and ties at every one.
template <class B>
void check_every_zero_point(const QuantizeKernels& kernels) {
  constexpr int kLow = std::numeric_limits<B>::lowest();
  std::vector<B> codes;
  std::vector<float> x;
  for (int v = kLow; v < kLow + 256; ++v) codes.push_back(static_cast<B>(v));
  for (int v = -600; v <= 600; ++v) x.push_back(static_cast<float>(v) / 2);
  for (const float v : awkward(113, 0)) x.push_back(v);
  for (int zero = kLow; zero < kLow + 256; ++zero) {
    Output<B> y(x.size());
    kernels.bytes<B>().quantize(x.data(), y.data(), static_cast<int64_t>(x.size()), 1, zero);
    CHECK(y.is([&](size_t i) { return byte_of<B>(x[i], zero); }));
    Output<float> back(256);
    kernels.bytes<B>().dequantize(codes.data(), back.data(), 256, 0.3f, zero);
    CHECK(back.is([&](size_t i) { return static_cast<float>(kLow + static_cast<int>(i) - zero) * 0.3f; }));
  }
}

}  // namespace

TEST(quantize_bytes_are_the_definition) {
  for (const Isa isa : available_isas()) {
    CHECK_EQ(std::string(quantize_kernels(isa).compiled_isa()), isa_name(isa));
    check_bytes<uint8_t>(quantize_kernels(isa));
    check_bytes<int8_t>(quantize_kernels(isa));
  }
}

TEST(quantize_every_zero_point) {
  for (const Isa isa : available_isas()) {
    check_every_zero_point<uint8_t>(quantize_kernels(isa));
    check_every_zero_point<int8_t>(quantize_kernels(isa));
  }
}

// Known by heart: halves go to the even neighbour, what is too large saturates, NaN is the least byte.
TEST(quantize_known_answers) {
  const std::vector<float> x = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 1e30f, -1e30f, kInf, -kInf, kNan};
  const std::vector<int8_t> want = {1, 3, 3, 1, -1, 127, -128, 127, -128, -128};
  for (const Isa isa : available_isas()) {
    Output<int8_t> y(x.size());
    quantize_kernels(isa).i8.quantize(x.data(), y.data(), static_cast<int64_t>(x.size()), 1, 1);
    CHECK(y.is([&](size_t i) { return want[i]; }));
  }
}

// Through float's bits: neighbours of every exponent, so that no tier takes a reciprocal for the division.
TEST(quantize_divides) {
  std::vector<float> x;
  for (uint64_t v = 0; v < (uint64_t{1} << 32); v += 65521) x.push_back(std::bit_cast<float>(static_cast<uint32_t>(v)));
  for (const float scale : {0.1f, 0.003f, 7.0f, 1e-40f, 1e38f}) {
    for (int v = -300; v < 300; ++v) {
      const float tie = (static_cast<float>(v) + 0.5f) * scale;
      for (const float y : {tie, std::nextafter(tie, kInf), std::nextafter(tie, -kInf)}) x.push_back(y);
    }
    for (const Isa isa : available_isas()) {
      Output<uint8_t> y(x.size());
      quantize_kernels(isa).u8.quantize(x.data(), y.data(), static_cast<int64_t>(x.size()), scale, 100);
      CHECK(y.is([&](size_t i) { return byte_of<uint8_t>(x[i] / scale, 100); }));
    }
  }
}

TEST(quantize_int32_rounds_once) {
  for (const Isa isa : available_isas()) {
    const QuantizeKernels& k = quantize_kernels(isa);
    for (const size_t size : lengths()) {
      const auto n = static_cast<int64_t>(size);
      const std::vector<int32_t> x = integers<int32_t>(size, static_cast<uint32_t>(size));
      const std::vector<float> scale = random_floats(size, 9, 0.1f, 3);
      Output<float> y(size);
      k.dequantize_i32(x.data(), y.data(), n, 0.7f);
      CHECK(y.is([&](size_t i) { return static_cast<float>(x[i]) * 0.7f; }));
      k.dequantize_i32_each(x.data(), y.data(), n, scale.data());
      CHECK(y.is([&](size_t i) { return static_cast<float>(x[i]) * scale[i]; }));
    }
  }
}

TEST(quantize_range_skips_nan_and_only_widens) {
  for (const Isa isa : available_isas()) {
    for (const size_t size : lengths()) {
      for (uint32_t seed = 0; seed < 3; ++seed) {
        std::vector<float> x = seed ? awkward(size, seed) : random_floats(size, 5, 2, 3);
        if (seed == 2) {
          for (float& v : x) v = std::isinf(v) ? kNan : -std::fabs(v);
        }
        float low = 0, high = 0, want_low = 0, want_high = 0;
        for (const float v : x) {
          want_low = v < want_low ? v : want_low;
          want_high = v > want_high ? v : want_high;
        }
        quantize_kernels(isa).widen_range(x.data(), static_cast<int64_t>(size), &low, &high);
        CHECK_EQ(bits(low), bits(want_low));
        CHECK_EQ(bits(high), bits(want_high));
      }
    }
  }
}

// A NaN must not make a lane forget what it had.
TEST(quantize_range_survives_nan) {
  for (const Isa isa : available_isas()) {
    for (size_t nan_at = 0; nan_at < 200; ++nan_at) {
      for (size_t end_at = nan_at % 32; end_at < 200; end_at += 32) {
        if (end_at == nan_at) continue;
        std::vector<float> x(200, 1.0f);
        x[end_at] = -5;
        x[nan_at] = kNan;
        float low = 0, high = 0;
        quantize_kernels(isa).widen_range(x.data(), 200, &low, &high);
        CHECK(low == -5 && high == 1);
        x[end_at] = 5;
        low = 0;
        quantize_kernels(isa).widen_range(x.data(), 200, &low, &high);
        CHECK(low == 0 && high == 5);
      }
    }
  }
}

TEST(quantize_row_by_its_own_range) {
  for (const size_t size : lengths()) {
    for (const auto& [low, high, power] :
         {std::tuple{-1.0f, 1.0f, 0}, {0.5f, 1.0f, -90}, {-3.0f, -1.0f, 120}, {0.0f, 0.0f, 0}}) {
      std::vector<float> x = random_floats(size, static_cast<uint32_t>(size), low, high);
      for (float& v : x) v = std::ldexp(v, power);
      double least = 0, greatest = 0;
      for (const float v : x) least = std::min<double>(least, v), greatest = std::max<double>(greatest, v);
      std::vector<uint8_t> first;
      for (const Isa isa : available_isas()) {
        Output<uint8_t> y(size);
        uint8_t zero = 77;
        const float scale = quantize_kernels(isa).quantize_row(x.data(), y.data(), static_cast<int64_t>(size), &zero);
        if (first.empty()) {
          first.assign(y.data(), y.data() + size);
          first.push_back(zero);
        }
        CHECK(y.is([&](size_t i) { return first[i]; }) && zero == first[size]);
        const double step = std::max((greatest - least) / 255, 0x1p-99 / 255);
        CHECK(std::fabs(scale / step - 1) < 1e-6);
        for (size_t i = 0; i < size; ++i) {
          const double back = (int32_t{y.data()[i]} - zero) * static_cast<double>(scale);
          CHECK(std::fabs(back - static_cast<double>(x[i])) <=
                1.001 * step);  // half, and half where the zero point was rounded
        }
      }
    }
  }
}

TEST(quantize_row_of_what_is_no_number) {
  for (const Isa isa : available_isas()) {
    for (const size_t size : {1, 15, 16, 40}) {
      for (const float odd : {kNan, kInf, -kInf}) {
        std::vector<float> x = random_floats(size, 1);
        x[size - 1] = odd;
        std::vector<uint8_t> y(size);
        uint8_t zero = 0;
        CHECK(std::isnan(quantize_kernels(isa).quantize_row(x.data(), y.data(), static_cast<int64_t>(size), &zero)));
      }
    }
  }
}
