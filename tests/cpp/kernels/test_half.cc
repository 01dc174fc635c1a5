#include <bit>
#include <vector>

#include "base/dtype.h"
#include "kernels/cpu/half/half.h"
#include "platform/float_environment.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

uint32_t bits_of(float f) { return std::bit_cast<uint32_t>(f); }
// The scalar conversions of base keep a signalling NaN; the kernels make it quiet, as hardware does.
float quiet(float f) { return std::isnan(f) ? std::bit_cast<float>(bits_of(f) | 0x400000u) : f; }

}  // namespace

TEST(half_widens_every_value) {
  std::vector<Half> f16;
  std::vector<BFloat16> bf16;
  for (uint32_t v = 0; v < 65536; ++v) {
    f16.push_back({static_cast<uint16_t>(v)});
    bf16.push_back({static_cast<uint16_t>(v)});
  }
  std::vector<float> y(65536);
  for (const Isa isa : available_isas()) {
    CHECK_EQ(std::string(half_kernels(isa).compiled_isa()), isa_name(isa));
    int wrong = 0;
    half_kernels(isa).widen_f16(f16.data(), y.data(), 65536);
    for (size_t i = 0; i < y.size(); ++i) wrong += bits_of(y[i]) != bits_of(quiet(to_float(f16[i])));
    CHECK_EQ(wrong, 0);
    half_kernels(isa).widen_bf16(bf16.data(), y.data(), 65536);
    for (size_t i = 0; i < y.size(); ++i) wrong += bits_of(y[i]) != bits_of(quiet(to_float(bf16[i])));
    CHECK_EQ(wrong, 0);
  }
}

/// In the environment that models run in, where subnormal floats are zeros: a half's own are none in float. In any
/// length, so that the elements behind the last whole vector are seen, too.
TEST(half_keeps_its_subnormals_in_a_run) {
  const FloatEnvironment ours;
  std::vector<Half> x;
  for (uint32_t v = 0; v < 65536; v += 7) x.push_back({static_cast<uint16_t>(v)});
  for (uint32_t v = 0; v < 0x401; ++v) {
    x.push_back({static_cast<uint16_t>(v)});
    x.push_back({static_cast<uint16_t>(0x8000 | v)});
  }
  std::vector<float> y(x.size());
  std::vector<Half> back(x.size());
  for (const Isa isa : available_isas()) {
    for (const size_t length : {size_t{1}, size_t{3}, size_t{7}, size_t{8}, size_t{9}, size_t{40}, x.size()}) {
      for (size_t at = 0; at + length <= x.size(); at += length) {
        half_kernels(isa).widen_f16(&x[at], &y[at], static_cast<int64_t>(length));
        half_kernels(isa).narrow_f16(&y[at], &back[at], static_cast<int64_t>(length));
      }
      int wrong = 0;
      for (size_t i = 0; i < x.size() / length * length; ++i) {
        wrong += bits_of(y[i]) != bits_of(quiet(to_float(x[i])));
        wrong += !std::isnan(y[i]) && back[i].bits != x[i].bits;
      }
      CHECK_EQ(wrong, 0);
    }
  }
}

TEST(half_narrows_to_nearest_even) {
  // Every half, the middles between neighbours and what lies a bit to either side; then floats from everywhere.
  std::vector<float> x;
  for (uint32_t v = 0; v < 65536; v += 3) {
    const uint32_t f = bits_of(to_float(Half{static_cast<uint16_t>(v)}));
    for (const uint32_t add : {0u, 0xfffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u}) {
      x.push_back(std::bit_cast<float>(f + add));
    }
  }
  for (uint64_t v = 0; v < (uint64_t{1} << 32); v += 65521) x.push_back(std::bit_cast<float>(static_cast<uint32_t>(v)));
  const auto n = static_cast<int64_t>(x.size());
  std::vector<Half> f16(x.size());
  std::vector<BFloat16> bf16(x.size());
  for (const Isa isa : available_isas()) {
    half_kernels(isa).narrow_f16(x.data(), f16.data(), n);
    half_kernels(isa).narrow_bf16(x.data(), bf16.data(), n);
    int wrong = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      wrong += f16[i].bits != to_half(x[i]).bits || bf16[i].bits != to_bfloat16(x[i]).bits;
    }
    CHECK_EQ(wrong, 0);
  }
}

TEST(half_knows_its_tails) {
  for (const Isa isa : available_isas()) {
    for (int64_t n = 0; n < 40; ++n) {
      std::vector<float> x(static_cast<size_t>(n), 1.5f), back(static_cast<size_t>(n) + 1, -7.0f);
      std::vector<Half> y(static_cast<size_t>(n) + 1, Half{77});
      half_kernels(isa).narrow_f16(x.data(), y.data(), n);
      half_kernels(isa).widen_f16(y.data(), back.data(), n);
      CHECK_EQ(y[static_cast<size_t>(n)].bits, 77);
      CHECK_EQ(back[static_cast<size_t>(n)], -7.0f);
      for (int64_t i = 0; i < n; ++i) CHECK_EQ(back[static_cast<size_t>(i)], 1.5f);
    }
  }
}
