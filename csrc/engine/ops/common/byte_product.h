// Operands of integer GEMM: packed when the model is loaded where they are constant, else by a step of the run.
#pragma once
#include <algorithm>

#include "engine/compile/lower.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/igemm/igemm.h"

namespace inferkit {

/// Input `i` as `rows` rows of k bytes for the left side. The rows must not be empty.
Ref packed_left(LowerContext& c, size_t i, int64_t rows, int64_t k);
/// Input `i` as `matrices` of [k, n] for the right side; packed_right_bytes each.
Ref packed_right(LowerContext& c, size_t i, int64_t matrices, int64_t k, int64_t n);

inline int64_t packed_right_bytes(int64_t k, int64_t n) {
  return kernels::igemm_panels(n) * kernels::igemm_panel_bytes(kernels::igemm_kernels(), k);
}

inline kernels::ScaledSums rows_from(kernels::ScaledSums s, int64_t first) {
  s.y += first * s.ldy;
  s.row += first;
  if (s.base) s.base += first * s.base_row;
  return s;
}
inline kernels::ScaledSums columns_from(kernels::ScaledSums s, int64_t first) {
  s.y += first;
  s.column += first;
  if (s.base) s.base += first;
  return s;
}

/// C = the product, on as many threads as the run may use: pieces of rows, or of panels where there are few rows.
inline void igemm_parallel(const kernels::IgemmArgs& args, const ExecContext& context) {
  constexpr int64_t kGrain = int64_t{1} << 21;  // products: some 10 us of work
  const auto& kernels = kernels::igemm_kernels();
  const int64_t row_bytes = kernels::igemm_row_bytes(kernels, args.k);
  const int64_t panels = kernels::igemm_panels(args.n);
  const auto by = [](kernels::ZeroPoints zero, int64_t first) {
    if (zero.data && zero.per_line) zero.data = static_cast<const std::byte*>(zero.data) + first;
    return zero;
  };
  if (args.m >= panels) {
    for_ranges(context, args.m, kGrain / std::max<int64_t>(1, args.n * args.k), [&](int64_t first, int64_t last) {
      kernels::IgemmArgs part = args;
      part.m = last - first;
      part.a = static_cast<const std::byte*>(args.a) + first * row_bytes;
      part.a_zero = by(args.a_zero, first);
      if (args.c) part.c = args.c + first * args.ldc;
      if (!args.c) part.scaled = rows_from(args.scaled, first);
      kernels.gemm(part);
    });
  } else {
    const int64_t panel_bytes = kernels::igemm_panel_bytes(kernels, args.k), width = kernels::kIgemmColumns;
    for_ranges(context, panels, kGrain / std::max<int64_t>(1, width * args.m * args.k),
               [&](int64_t first, int64_t last) {
                 kernels::IgemmArgs part = args;
                 part.n = std::min(args.n, last * width) - first * width;
                 part.b = static_cast<const std::byte*>(args.b) + first * panel_bytes;
                 part.b_zero = by(args.b_zero, first * width);
                 if (args.c) part.c = args.c + first * width;
                 if (!args.c) part.scaled = columns_from(args.scaled, first * width);
                 kernels.gemm(part);
               });
  }
}

}  // namespace inferkit
