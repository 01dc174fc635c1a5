#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/scan.h"
#include "test.h"

using namespace inferkit;

namespace {
StridedView view(DType dtype, const void* data, Shape shape, std::vector<int64_t> strides) {
  StridedView v{dtype, shape, {}, data};
  std::copy(strides.begin(), strides.end(), v.byte_strides.begin());
  return v;
}
}  // namespace

TEST(scan_copies_transposed_reversed_and_broadcast) {
  const float a[6] = {0, 1, 2, 3, 4, 5};  // 2 x 3
  float out[6];
  CHECK(copy_strided(view(DType::kF32, a, {3, 2}, {4, 12}), out, NonFinite::kNone));
  CHECK((std::vector<float>(out, out + 6) == std::vector<float>{0, 3, 1, 4, 2, 5}));
  CHECK(copy_strided(view(DType::kF32, a + 5, {2, 3}, {-12, -4}), out, NonFinite::kNone));
  CHECK((std::vector<float>(out, out + 6) == std::vector<float>{5, 4, 3, 2, 1, 0}));
  CHECK(copy_strided(view(DType::kF32, a, {2, 3}, {0, 4}), out, NonFinite::kNone));
  CHECK((std::vector<float>(out, out + 6) == std::vector<float>{0, 1, 2, 0, 1, 2}));
}

TEST(scan_copies_every_element_size_unaligned) {
  for (int d = 0; d < kDTypeCount; ++d) {
    const DType dtype = static_cast<DType>(d);
    const size_t size = dtype_size(dtype);
    if (size == 0) continue;
    std::vector<unsigned char> raw(1 + 7 * 2 * size);
    for (size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<unsigned char>(i % 50);
    std::vector<unsigned char> out(7 * size), want(7 * size);
    // Every second element, from an odd address.
    for (size_t i = 0; i < 7; ++i) std::memcpy(&want[i * size], &raw[1 + 2 * i * size], size);
    if (dtype == DType::kBool) {
      for (unsigned char& byte : want) byte = byte != 0;
    }
    const auto source = view(dtype, raw.data() + 1, {7}, {static_cast<int64_t>(2 * size)});
    for (const NonFinite allowed : {NonFinite::kNone, NonFinite::kNan, NonFinite::kMinusInfinity, NonFinite::kAll}) {
      CHECK(copy_strided(source, out.data(), allowed));
      CHECK(out == want);
    }
  }
}

TEST(scan_copies_bools_as_0_and_1) {
  std::vector<unsigned char> raw(3 * 100);
  for (size_t i = 0; i < raw.size(); ++i) raw[i] = static_cast<unsigned char>(i % 5 ? 0 : i);
  for (const int64_t n : {0, 1, 7, 16, 33, 100}) {
    for (const int64_t step : {1, 3, 0, -2}) {
      const unsigned char* first = raw.data() + (step < 0 ? -step * n : 0);
      std::vector<unsigned char> out(static_cast<size_t>(n) + 1, 77);
      CHECK(copy_strided(view(DType::kBool, first, {n}, {step}), out.data(), NonFinite::kNone));
      for (int64_t i = 0; i < n; ++i) CHECK_EQ(out[static_cast<size_t>(i)], first[i * step] != 0 ? 1 : 0);
      CHECK_EQ(int{out.back()}, 77);
    }
  }
}

TEST(scan_finds_each_non_finite_at_each_position) {
  const float inf = std::numeric_limits<float>::infinity();
  for (size_t n : {1, 3, 16, 37, 100}) {
    for (float bad : {NAN, inf, -inf, -NAN}) {
      for (size_t at = 0; at < n; ++at) {
        std::vector<float> f(n, std::numeric_limits<float>::max()), f_out(n);
        std::vector<double> d(n, std::numeric_limits<double>::max()), d_out(n);
        std::vector<Half> h(n, Half{0x7bff});          // 65504, the largest
        std::vector<BFloat16> b(n, BFloat16{0x7f7f});  // the largest
        auto check_all = [&](bool finite) {
          const int64_t count = static_cast<int64_t>(n);
          CHECK_EQ(copy_strided(view(DType::kF32, f.data(), {count}, {4}), f_out.data(), NonFinite::kNone), finite);
          CHECK_EQ(copy_strided(view(DType::kF64, d.data(), {count}, {8}), d_out.data(), NonFinite::kNone), finite);
          CHECK_EQ(all_finite(TensorView{DType::kF16, {count}, h.data()}), finite);
          CHECK_EQ(all_finite(TensorView{DType::kBF16, {count}, b.data()}), finite);
        };
        check_all(true);
        f[at] = bad, d[at] = bad, h[at] = to_half(bad), b[at] = to_bfloat16(bad);
        check_all(false);
        CHECK_EQ(std::memcmp(f.data(), f_out.data(), n * 4), 0);
        CHECK(copy_strided(view(DType::kF32, f.data(), {static_cast<int64_t>(n)}, {4}), f_out.data(), NonFinite::kAll));
        CHECK((*first_non_finite(view(DType::kF32, f.data(), {static_cast<int64_t>(n)}, {4})) ==
               Shape{static_cast<int64_t>(at)}));
      }
    }
  }
}

TEST(scan_says_where_in_a_strided_tensor) {
  float a[6] = {0, 1, 2, 3, NAN, 5};
  CHECK((*first_non_finite(view(DType::kF32, a, {3, 2}, {4, 12})) == Shape{1, 1}));
  CHECK(!all_finite(view(DType::kF32, a, {3, 2}, {4, 12})));
  CHECK(all_finite(view(DType::kF32, a, {2, 2}, {12, 8})) == true);  // skips column 1
  CHECK(all_finite(view(DType::kI32, a, {6}, {4})));
}

TEST(scan_empty_and_scalar) {
  float a = 3, out = 0;
  CHECK(copy_strided(view(DType::kF32, &a, {}, {}), &out, NonFinite::kNone));
  CHECK_EQ(out, 3.0f);
  CHECK(copy_strided(view(DType::kF32, nullptr, {0, 4}, {16, 4}), &out, NonFinite::kNone));
  CHECK_EQ(out, 3.0f);
}

TEST(scan_contiguity) {
  CHECK(StridedView::contiguous({DType::kF32, {2, 3}, nullptr}).is_contiguous());
  CHECK(view(DType::kF32, nullptr, {2, 1, 3}, {12, 999, 4}).is_contiguous());
  CHECK(!view(DType::kF32, nullptr, {3, 2}, {4, 12}).is_contiguous());
  CHECK(view(DType::kF32, nullptr, {0, 2}, {1, 1}).is_contiguous());
}

TEST(scan_finds_all_that_is_not_allowed) {
  struct Kind {
    DType dtype;
    uint64_t nan, negative_nan, infinity, minus_infinity;
  };
  for (const Kind& kind :
       {Kind{DType::kF16, 0x7e00, 0xfc01, 0x7c00, 0xfc00}, Kind{DType::kBF16, 0x7fc0, 0xff81, 0x7f80, 0xff80},
        Kind{DType::kF32, 0x7fc00000, 0xff800001, 0x7f800000, 0xff800000},
        Kind{DType::kF64, 0x7ff8000000000000, 0xfff0000000000001, 0x7ff0000000000000, 0xfff0000000000000},
        Kind{DType::kF8E5M2, 0x7e, 0xfd, 0x7c, 0xfc}}) {
    const size_t size = dtype_size(kind.dtype);
    struct Case {
      uint64_t bits;
      bool with_nan, with_minus_infinity, with_plus_infinity;  // whether that scan lets it through
    };
    for (const Case& c : {Case{kind.nan, true, false, false}, Case{kind.negative_nan, true, false, false},
                          Case{kind.infinity, false, false, true}, Case{kind.minus_infinity, false, true, false}}) {
      for (const size_t n : {1, 3, 16, 33}) {
        for (size_t bad = 0; bad < n; ++bad) {
          std::vector<unsigned char> data(n * size), out(n * size);
          std::memcpy(&data[bad * size], &c.bits, size);  // little-endian
          const StridedView source = view(kind.dtype, data.data(), {int64_t(n)}, {int64_t(size)});
          const std::pair<NonFinite, bool> scans[] = {{NonFinite::kNone, false},
                                                      {NonFinite::kNan, c.with_nan},
                                                      {NonFinite::kMinusInfinity, c.with_minus_infinity},
                                                      {NonFinite::kPlusInfinity, c.with_plus_infinity},
                                                      {NonFinite::kInfinity, !c.with_nan},
                                                      {NonFinite::kAll, true}};
          for (const auto& [allowed, passes] : scans) {
            CHECK_EQ(all_finite(source, allowed), passes);
            CHECK_EQ(copy_strided(source, out.data(), allowed), passes);
            CHECK(out == data);
            const auto first = first_non_finite(source, allowed);
            CHECK_EQ(first.has_value(), !passes);
            if (first) CHECK_EQ((*first)[0], int64_t(bad));
          }
        }
      }
    }
  }
}
