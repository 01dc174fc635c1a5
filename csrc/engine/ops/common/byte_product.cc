#include "engine/ops/common/byte_product.h"

namespace inferkit {
namespace {

using kernels::ByteMatrix;
using kernels::igemm_kernels;

struct PackParams {
  int64_t lines, k;  // of the left side: rows; of the right: columns of each matrix
  int64_t matrices;
  bool is_signed;
};

void pack_left(const PackParams& p, const void* from, void* to, int64_t first, int64_t last) {
  const int64_t row_bytes = kernels::igemm_row_bytes(igemm_kernels(), p.k);
  igemm_kernels().pack_a({static_cast<const std::byte*>(from) + first * p.k, p.k, 1, p.is_signed}, last - first, p.k,
                         static_cast<std::byte*>(to) + first * row_bytes);
}
void pack_left_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const PackParams*>(params);
  for_ranges(context, p.lines, (int64_t{1} << 17) / std::max<int64_t>(1, p.k),
             [&](int64_t first, int64_t last) { pack_left(p, io[1], io[0], first, last); });
}

/// Panels [first, last) of one matrix.
void pack_right(const PackParams& p, int64_t matrix, const void* from, void* to, int64_t first, int64_t last) {
  const int64_t column = first * kernels::kIgemmColumns;
  const int64_t columns = std::min(p.lines, last * kernels::kIgemmColumns) - column;
  const auto* source = static_cast<const std::byte*>(from) + matrix * p.k * p.lines + column;
  auto* target = static_cast<std::byte*>(to) + matrix * packed_right_bytes(p.k, p.lines) +
                 first * kernels::igemm_panel_bytes(igemm_kernels(), p.k);
  igemm_kernels().pack_b({source, p.lines, 1, p.is_signed}, p.k, columns, target);
}
void pack_right_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const PackParams*>(params);
  for (int64_t i = 0; i < p.matrices; ++i) {
    for_ranges(context, kernels::igemm_panels(p.lines), (int64_t{1} << 13) / std::max<int64_t>(1, p.k),
               [&](int64_t first, int64_t last) { pack_right(p, i, io[1], io[0], first, last); });
  }
}

/// Packed once per model where the input is constant, else by `step`.
template <class Pack>
Ref packed(LowerContext& c, size_t i, const std::string& kind, int64_t bytes, StepFn step, const PackParams& p,
           Pack&& pack) {
  if (const Tensor* constant = c.input(i).constant) {
    // What kernels arrange alike is read by all of them: VNNI and the tiles take four neighbours in K at once, and add
    // 128 to bytes, others two.
    const Packing packing{kind, DType::kU8, bytes, cat("depth-", igemm_kernels().depth)};
    return c.packed({constant}, packing, [&](void* to) { pack(*constant, to); });
  }
  const Ref to = c.scratch(static_cast<size_t>(bytes));
  c.step(step, p, {to, c.in(i)}, multiplied(p.matrices, p.lines, p.k) / 8);
  return to;
}

}  // namespace

Ref packed_left(LowerContext& c, size_t i, int64_t rows, int64_t k) {
  const PackParams p{rows, k, 1, c.input(i).dtype == DType::kI8};
  return packed(c, i, cat("igemm-left-", k), rows * kernels::igemm_row_bytes(igemm_kernels(), k), pack_left_step, p,
                [&](const Tensor& t, void* to) { pack_left(p, t.data, to, 0, rows); });
}

Ref packed_right(LowerContext& c, size_t i, int64_t matrices, int64_t k, int64_t n) {
  const PackParams p{n, k, matrices, c.input(i).dtype == DType::kI8};
  return packed(c, i, cat("igemm-right-", k, "-", n), matrices * packed_right_bytes(k, n), pack_right_step, p,
                [&](const Tensor& t, void* to) {
                  for (int64_t m = 0; m < matrices; ++m) pack_right(p, m, t.data, to, 0, kernels::igemm_panels(n));
                });
}

}  // namespace inferkit
