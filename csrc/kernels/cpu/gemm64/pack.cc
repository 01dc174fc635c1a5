// Packing B into panels of 8 columns of double: copies, which every tier shares.
#include <algorithm>

#include "kernels/cpu/gemm64/gemm64.h"
#include "platform/run_control.h"

namespace inferkit::kernels {
namespace {

constexpr int64_t kColumns = kPanelColumnsOf<double>;

/// Panels side by side, so that long rows of B are read in longer pieces.
constexpr int64_t kBeside = 4;

/// `width` columns, of up to kBeside panels.
void pack_beside(const double* b, int64_t ldb, int64_t k, int64_t width, double* to) {
  if (width == kBeside * kColumns) {
    for (int64_t i = 0; i < k; ++i, b += ldb, to += kColumns) {
      for (int64_t p = 0; p < kBeside; ++p) std::copy_n(b + p * kColumns, kColumns, to + p * k * kColumns);
    }
    return;
  }
  for (; width > 0; width -= kColumns, b += kColumns, to += k * kColumns) {
    const int64_t columns = std::min(width, kColumns);
    for (int64_t i = 0; i < k; ++i) {
      double* row = to + i * kColumns;
      if (columns == kColumns) {
        std::copy_n(b + i * ldb, kColumns, row);
      } else {
        for (int64_t j = 0; j < kColumns; ++j) row[j] = j < columns ? b[i * ldb + j] : 0.0;
      }
    }
  }
}

/// One panel. Two rows of it at a time: they are the pairs in which the columns of B lie.
void pack_panel_transposed(const double* b, int64_t ldb, int64_t k, int64_t columns, double* to) {
  int64_t i = 0;
  if (columns == kColumns) {
    for (; i + 2 <= k; i += 2, to += 2 * kColumns) {
      for (int64_t j = 0; j < kColumns; ++j) {
        to[j] = b[j * ldb + i];
        to[kColumns + j] = b[j * ldb + i + 1];
      }
    }
  }
  for (; i < k; ++i, to += kColumns) {
    for (int64_t j = 0; j < kColumns; ++j) to[j] = j < columns ? b[j * ldb + i] : 0.0;
  }
}

/// pack(b, ldb, k, columns, to) for kWidth columns at a time; `column` is what a column of B is away from the one
/// before it.
template <int64_t kWidth, class F>
void pack_by(F&& pack, int64_t column, const double* b, int64_t ldb, int64_t k, int64_t n, double* packed) {
  constexpr int64_t kElementsPerPart = int64_t{1} << 20;
  const auto some = [&](int64_t first, int64_t last) {
    for (int64_t at = first * kWidth; at < std::min(n, last * kWidth); at += kWidth) {
      pack(b + at * column, ldb, k, std::min(kWidth, n - at), packed + at * k);
    }
  };
  const int64_t count = (n + kWidth - 1) / kWidth;
  if (k * n <= kElementsPerPart) return some(0, count);
  const int64_t step = std::max<int64_t>(1, kElementsPerPart / (k * kWidth));
  for_parts((count + step - 1) / step, [&](int64_t i) { some(i * step, std::min(count, (i + 1) * step)); });
}

}  // namespace

size_t packed_b64_elements(int64_t k, int64_t n) {
  return static_cast<size_t>((n + kColumns - 1) / kColumns * k * kColumns);
}

void pack_b(const double* b, int64_t ldb, int64_t k, int64_t n, double* packed) {
  pack_by<kBeside * kColumns>(pack_beside, 1, b, ldb, k, n, packed);
}
void pack_b_transposed(const double* b, int64_t ldb, int64_t k, int64_t n, double* packed) {
  pack_by<kColumns>(pack_panel_transposed, ldb, b, ldb, k, n, packed);
}

}  // namespace inferkit::kernels
