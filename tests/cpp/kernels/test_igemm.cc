#include <bit>

#include "kernels/cpu/igemm/igemm.h"
#include "platform/aligned_alloc.h"
#include "platform/isa.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

std::vector<const IgemmKernels*> all_kernels() {
  std::vector<const IgemmKernels*> out;
  for (const Isa isa : available_isas()) {
    const IsaFeatures all = available_features(isa), tiles = IsaFeature::kAmxInt8;
    for (const IsaFeatures features : {IsaFeatures(), all.without(tiles), all}) {
      if (const auto& one = igemm_kernels(isa, features); out.empty() || &one != out.back()) out.push_back(&one);
    }
  }
  return out;
}

enum class Bytes { kAny, kLargest, kLeast };

std::vector<uint8_t> random_bytes(int64_t count, uint32_t seed, Bytes kind, bool is_signed) {
  std::mt19937 random(seed);
  std::vector<uint8_t> out(static_cast<size_t>(count));
  for (auto& v : out) {
    v = kind == Bytes::kAny       ? static_cast<uint8_t>(random())
        : kind == Bytes::kLargest ? (is_signed ? 127 : 255)
                                  : (is_signed ? 128 : 0);
  }
  return out;
}

struct Problem {
  int64_t m, n, k;
  bool a_signed, b_signed, a_per_row, b_per_column, a_across, b_across;
  std::vector<uint8_t> a, b, a_zero, b_zero;

  Problem(int64_t rows, int64_t columns, int64_t depth, uint32_t seed, Bytes kind = Bytes::kAny)
      : m(rows),
        n(columns),
        k(depth),
        a_signed(seed & 1),
        b_signed(seed & 2),
        a_per_row(seed & 4),
        b_per_column(seed & 8),
        a_across(seed % 5 == 0),
        b_across(seed % 7 == 0),
        a(random_bytes(m * (k + 3) + k * m, seed, kind, a_signed)),
        b(random_bytes(k * (n + 5) + k * n, seed + 1, kind, b_signed)),
        a_zero(random_bytes(m, seed + 2, Bytes::kAny, a_signed)),
        b_zero(random_bytes(n, seed + 3, Bytes::kAny, b_signed)) {}

  ByteMatrix left() const { return {a.data(), a_across ? 1 : k + 3, a_across ? m : 1, a_signed}; }
  ByteMatrix right() const { return {b.data(), b_across ? 1 : n + 5, b_across ? k : 1, b_signed}; }
  static int32_t value(const void* data, int64_t i, bool is_signed) {
    const uint8_t byte = static_cast<const uint8_t*>(data)[i];
    return is_signed ? static_cast<int8_t>(byte) : byte;
  }
  static int32_t element(const ByteMatrix& x, int64_t i, int64_t j) {
    return value(x.data, i * x.row_stride + j * x.column_stride, x.is_signed);
  }

  void check(const IgemmKernels& kernels, bool has_zeros) const {
    // Blocks of exactly the bytes that they may take, so that a sanitizer sees any other.
    const auto packed_a = make_aligned<std::byte>(static_cast<size_t>(m * igemm_row_bytes(kernels, k)));
    const auto packed_b = make_aligned<std::byte>(static_cast<size_t>(igemm_panels(n) * igemm_panel_bytes(kernels, k)));
    kernels.pack_a(left(), m, k, packed_a.get());
    kernels.pack_b(right(), k, n, packed_b.get());
    const int64_t ldc = n + 2;
    constexpr int32_t kUntouched = 0x5a5a5a5a;
    std::vector<int32_t> c(static_cast<size_t>(m * ldc), kUntouched);
    IgemmArgs g;
    g.m = m, g.n = n, g.k = k;
    g.a = packed_a.get(), g.b = packed_b.get();
    g.a_signed = a_signed, g.b_signed = b_signed;
    if (has_zeros) g.a_zero = {a_zero.data(), a_per_row}, g.b_zero = {b_zero.data(), b_per_column};
    g.c = c.data(), g.ldc = ldc;
    kernels.gemm(g);
    int64_t wrong = 0;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < ldc; ++j) {
        uint32_t sum = 0;
        const int32_t za = has_zeros ? value(a_zero.data(), a_per_row ? i : 0, a_signed) : 0;
        const int32_t zb = has_zeros && j < n ? value(b_zero.data(), b_per_column ? j : 0, b_signed) : 0;
        for (int64_t l = 0; j < n && l < k; ++l) {
          sum += static_cast<uint32_t>((element(left(), i, l) - za) * (element(right(), l, j) - zb));
        }
        const int32_t want = j < n ? static_cast<int32_t>(sum) : kUntouched;
        wrong += c[static_cast<size_t>(i * ldc + j)] != want;
      }
    }
    // The same as floats, added to what is there or to a row for all.
    const std::vector<float> rows = random_floats(static_cast<size_t>(m), 1),
                             columns = random_floats(static_cast<size_t>(n), 2);
    const std::vector<float> before = random_floats(static_cast<size_t>(m * ldc), 3);
    for (const int64_t base_row : {ldc, int64_t{0}, int64_t{-1}}) {
      std::vector<float> y = before;
      g.c = nullptr;
      g.scaled = {y.data(), ldc, rows.data(), columns.data(), base_row == ldc ? y.data() : before.data(), base_row};
      if (base_row < 0) g.scaled.base = nullptr;
      kernels.gemm(g);
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < ldc; ++j) {
          const auto at = static_cast<size_t>(i * ldc + j);
          float want = before[at];
          if (j < n) {
            want = static_cast<float>(c[at]) * (rows[static_cast<size_t>(i)] * columns[static_cast<size_t>(j)]);
            if (base_row >= 0) want = before[static_cast<size_t>(i * base_row + j)] + want;
          }
          wrong += std::bit_cast<uint32_t>(y[at]) != std::bit_cast<uint32_t>(want);
        }
      }
    }
    if (wrong) std::printf("%s m=%ld n=%ld k=%ld\n", kernels.compiled_isa(), long(m), long(n), long(k));
    CHECK_EQ(wrong, 0);
  }
};

}  // namespace

TEST(igemm_small_sizes) {
  uint32_t seed = 1;
  for (int64_t m : {1, 2, 3, 5, 7, 12, 13, 25}) {
    for (int64_t n : {1, 15, 16, 17, 33, 64, 130}) {
      for (int64_t k : {0, 1, 2, 3, 4, 5, 31, 64}) {
        const Problem p(m, n, k, seed);
        for (const IgemmKernels* kernels : all_kernels()) p.check(*kernels, seed % 3 != 0);
        ++seed;
      }
    }
  }
}

/// Tiles of 16 rows, panels two by two and four by four, steps that fill no tile.
TEST(igemm_sizes_about_those_of_tiles) {
  uint32_t seed = 1;
  for (int64_t m : {7, 8, 15, 16, 17, 31, 32, 33, 48, 49, 70}) {
    for (int64_t n : {1, 16, 32, 33, 64, 65, 81}) {
      for (int64_t k : {28, 29, 32, 60, 63, 64, 65, 128, 131, 190}) {
        const Problem p(m, n, k, seed);
        for (const IgemmKernels* kernels : all_kernels()) p.check(*kernels, seed % 3 != 0);
        ++seed;
      }
    }
  }
}

TEST(igemm_every_signedness_at_the_limits) {
  for (const Bytes kind : {Bytes::kLargest, Bytes::kLeast}) {
    for (uint32_t seed = 0; seed < 16; ++seed) {
      for (const IgemmKernels* kernels : all_kernels()) Problem(4, 20, 301, seed, kind).check(*kernels, seed % 2);
      for (const IgemmKernels* kernels : all_kernels()) Problem(37, 50, 301, seed, kind).check(*kernels, seed % 2);
    }
  }
}

TEST(igemm_sums_wrap) {
  for (uint32_t seed = 0; seed < 4; ++seed) {
    for (const IgemmKernels* kernels : all_kernels())
      Problem(seed % 2 ? 2 : 20, 17, 70001, seed, Bytes::kLargest).check(*kernels, true);
  }
}

TEST(igemm_blocks_of_columns) {
  for (const int64_t m : {26, 77}) {  // B is larger than a block
    const Problem p(m, 1000, 2100, 22);
    for (const IgemmKernels* kernels : all_kernels()) p.check(*kernels, true);
  }
}
