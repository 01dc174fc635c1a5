#include "base/dtype.h"
#include "kernels/cpu/scan/scan.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

/// The bytes of an element of each type: an ordinary value, the largest finite one, an infinity, a NaN, and -0.
struct Samples {
  DType dtype;
  FloatKind kind;
  uint64_t plain, largest, infinite, nan, minus_zero, tiny;
};
constexpr Samples kSamples[] = {
    {DType::kF32, FloatKind::kF32, 0x3fc00000, 0xff7fffff, 0x7f800000, 0xffc00001, 0x80000000, 1},
    {DType::kF64, FloatKind::kF64, 0x3ff8000000000000, 0xffefffffffffffff, 0xfff0000000000000, 0x7ff0000000000001,
     0x8000000000000000, 1},
    {DType::kF16, FloatKind::kF16, 0x3e00, 0x7bff, 0xfc00, 0x7c01, 0x8000, 1},
    {DType::kBF16, FloatKind::kBF16, 0x3fc0, 0x7f7f, 0x7f80, 0xff81, 0x8000, 1},
};

void put(std::vector<char>& bytes, size_t offset, size_t i, size_t size, uint64_t value) {
  std::memcpy(bytes.data() + offset + i * size, &value, size);  // little-endian: the low bytes come first
}

}  // namespace

TEST(scan_finds_what_is_not_finite_at_every_place) {
  for (const Isa isa : available_isas()) {
    const ScanKernels& kernels = scan_kernels(isa);
    for (const Samples& s : kSamples) {
      const size_t size = dtype_size(s.dtype), kind = static_cast<size_t>(s.kind), offset = 1;  // unaligned
      for (const size_t n : {size_t{0}, size_t{1}, size_t{5}, size_t{33}, size_t{300}}) {
        std::vector<char> src(n * size + offset), dst(n * size + offset + 1, 'x');
        for (size_t i = 0; i < n; ++i) put(src, offset, i, size, i % 3 ? s.plain : i % 2 ? s.largest : s.minus_zero);
        const auto check = [&](bool want) {
          CHECK_EQ(kernels.all_finite[kind](src.data() + offset, static_cast<int64_t>(n)), want);
          CHECK_EQ(kernels.copy_all_finite[kind](dst.data() + offset, src.data() + offset, static_cast<int64_t>(n)),
                   want);
          CHECK(std::memcmp(src.data() + offset, dst.data() + offset, n * size) == 0);
          CHECK(dst.front() == 'x' && dst.back() == 'x');
        };
        check(true);
        for (size_t i = 0; i < n; ++i) {
          const std::vector<char> before = src;
          put(src, offset, i, size, i % 2 ? s.infinite : s.nan);
          check(false);
          src = before;
        }
      }
    }
  }
}

TEST(scan_finds_what_is_not_zero_at_every_place) {
  for (const Isa isa : available_isas()) {
    for (const Samples& s : kSamples) {
      const size_t size = dtype_size(s.dtype), n = 200;
      const auto zero = scan_kernels(isa).all_zero[static_cast<size_t>(s.kind)];
      std::vector<char> src(n * size);
      for (size_t i = 0; i < n; i += 3) put(src, 0, i, size, s.minus_zero);
      CHECK(zero(src.data(), static_cast<int64_t>(n)));
      for (size_t i = 0; i < n; ++i) {
        const std::vector<char> before = src;
        put(src, 0, i, size, i % 2 ? s.tiny : s.nan);
        CHECK(!zero(src.data(), static_cast<int64_t>(n)));
        src = before;
      }
    }
  }
}

TEST(scan_of_types_that_are_not_floats) {
  const int64_t values[3] = {0, 0, 1};
  int64_t copy[3] = {};
  CHECK(all_finite(DType::kI64, values, 3));
  CHECK(copy_all_finite(DType::kI64, copy, values, 3) && copy[2] == 1);
  CHECK(all_zero(DType::kI64, values, 2) && !all_zero(DType::kI64, values, 3) && all_zero(DType::kI64, values, 0));
  const bool flags[2] = {false, true};
  CHECK(all_zero(DType::kBool, flags, 1) && !all_zero(DType::kBool, flags, 2));
  const float nan = NAN;
  CHECK(!all_finite(DType::kF32, &nan, 1) && all_finite(DType::kI32, &nan, 1));
}
