#include "engine/ops/common/row_product.h"

#include <algorithm>

#include "engine/ops/common/byte_product.h"
#include "kernels/cpu/quantize/quantize.h"
#include "platform/aligned_alloc.h"

namespace inferkit {
namespace {

constexpr int64_t kRowBlock = 48;  // rows that are rounded and multiplied at once, of a step that takes many

int64_t to_line(int64_t bytes) { return round_up(bytes, int64_t{kAlignment}); }

/// Where the parts of the scratch for so many rows begin.
struct Room {
  int64_t codes, scales, zeros, bytes;
  Room(const RowWeights& w, int64_t rows)
      : codes(to_line(rows * kernels::igemm_row_bytes(kernels::igemm_kernels(), w.k))),
        scales(codes + to_line(rows * w.k)),
        zeros(scales + to_line(rows * int64_t{sizeof(float)})),
        bytes(zeros + to_line(rows)) {}
};

struct StepParams {
  int64_t rows;
  RowWeights weights;
  int slots;
  int64_t slot_bytes;
};
/// io: y, x, bias, panels, scales, zeros, scratch.
void row_product_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const StepParams*>(params);
  const RowWeights& w = p.weights;
  const int64_t blocks = (p.rows + kRowBlock - 1) / kRowBlock;
  const auto product = [&](int64_t first, int64_t last, int64_t slot, const ExecContext* threads) {
    row_product({w, io + 3, reinterpret_cast<const float*>(io[1]) + first * w.k, last - first, w.k,
                 reinterpret_cast<const float*>(io[2]), 0, reinterpret_cast<float*>(io[0]) + first * w.n, w.n,
                 io[6] + slot * p.slot_bytes},
                threads);
  };
  if (blocks < 2) return product(0, p.rows, 0, &context);
  for_tasks(context, blocks, p.slots,
            [&](int64_t i, int64_t slot) { product(p.rows * i / blocks, p.rows * (i + 1) / blocks, slot, nullptr); });
}

}  // namespace

int64_t RowWeights::room(int64_t rows) const { return Room(*this, rows).bytes; }

RowOperands row_weights(LowerContext& c, size_t weights, size_t scale, size_t zero, RowWeights& about) {
  const Tensor& w = *c.input(weights).constant;
  const Tensor& scales = *c.input(scale).constant;
  about.k = w.shape[1];
  about.n = w.shape[2];
  about.is_signed = w.dtype == DType::kI8;
  RowOperands out;
  out.panels = packed_right(c, weights, w.shape[0], about.k, about.n);
  const int64_t matrix = about.matrix, n = about.n;
  const Packing packing{cat("row-scales-", matrix, "-", n), DType::kF32, n, {}};
  out.scales = c.packed({&scales}, packing, [&scales, matrix, n](void* to) {
    const bool each = scales.shape.rank() == 2;
    for (int64_t j = 0; j < n; ++j) static_cast<float*>(to)[j] = scales.as<float>()[each ? matrix * n + j : matrix];
  });
  if (!c.has_input(zero)) return out;
  const Tensor& zeros = *c.input(zero).constant;
  const auto* bytes = static_cast<const uint8_t*>(zeros.data);
  about.has_zero = std::any_of(bytes, bytes + zeros.shape.elements(), [](uint8_t v) { return v != 0; });
  about.zero_per_column = zeros.shape.rank() == 2;
  if (about.has_zero) out.zeros = c.in(zero);
  return out;
}

void row_product(const RowProduct& p, const ExecContext* threads) {
  const RowWeights& w = p.weights;
  const Room room(w, p.rows);
  auto* codes = reinterpret_cast<uint8_t*>(p.room + room.codes);
  auto* scales = reinterpret_cast<float*>(p.room + room.scales);
  auto* zeros = reinterpret_cast<uint8_t*>(p.room + room.zeros);
  for (int64_t r = 0; r < p.rows; ++r) {
    scales[r] = kernels::quantize_kernels().quantize_row(p.x + r * p.x_row, codes + r * w.k, w.k, zeros + r);
  }
  kernels::igemm_kernels().pack_a({codes, w.k, 1, false}, p.rows, w.k, p.room);

  kernels::IgemmArgs g;
  g.m = p.rows;
  g.n = w.n;
  g.k = w.k;
  g.a = p.room;
  g.a_zero = {zeros, true};
  g.b = p.operands[0] + w.matrix * packed_right_bytes(w.k, w.n);
  g.b_signed = w.is_signed;
  if (w.has_zero) g.b_zero = {p.operands[2] + w.matrix * (w.zero_per_column ? w.n : 1), w.zero_per_column};
  g.scaled = {p.y, p.y_row, scales, reinterpret_cast<const float*>(p.operands[1]), p.base, p.base_row};
  threads ? igemm_parallel(g, *threads) : kernels::igemm_kernels().gemm(g);
}

void lower_row_product(LowerContext& c, Ref y, Ref x, int64_t rows, const RowWeights& about,
                       const RowOperands& operands, Ref bias) {
  if (rows == 0) return;
  const int slots = rows <= kRowBlock ? 1 : std::max(1, c.threads());
  const int64_t bytes = about.room(std::min(rows, kRowBlock));
  c.step(row_product_step, StepParams{rows, about, slots, bytes},
         {y, x, bias, operands.panels, operands.scales, operands.zeros, c.scratch(static_cast<size_t>(slots * bytes))},
         multiplied(rows, about.n, about.k) / kernels::igemm_kernels().products_per_nano);
}

}  // namespace inferkit
