// What becomes of the sums of a GEMM of bf16; part of gemm_bf16_impl.h and tiles_impl.h.
#pragma once
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "kernels/cpu/gemm_bf16/pairs_impl.h"

#if defined(__AVX512BF16__)
namespace inferkit::kernels::avx512 {
extern const VmathKernels kVmath;  // the functions have no tier of their own for bf16
}
#endif

namespace inferkit::kernels::INFERKIT_TIER {

#if defined(__AVX512BF16__)
using avx512::kVmath;
#else
extern const VmathKernels kVmath;
#endif

namespace {

/// Where the sums of a block of K go, for some rows: what the blocks before it have summed waits, and so do the sums of
/// this one where it is not the last.
struct PairTarget : GemmArgsBf16 {
  int64_t first_row = 0, first_panel = 0;  // where `waiting` begins
  float* waiting = nullptr;                // row first_row of the sums between blocks of K
  int64_t waiting_stride = 0;
  bool resume = false, finish = true;
};

/// What a tile has summed, into C or to where it waits: scale, bias, residual, ReLU; behind what waits, where it
/// `adds`. Compiled once, not for each size of tile.
[[gnu::noinline]] void finish_pairs(const PairTarget& g, int64_t row, int rows, int64_t panel, int panels,
                                    const float* sums, bool adds) {
  const int64_t first = panel * kPanelColumns;
  float* const waiting = g.waiting + (row - g.first_row) * g.waiting_stride + (panel - g.first_panel) * kPanelColumns;
  float* c = g.finish ? g.c + row * g.ldc + first : waiting;
  const int64_t ldc = g.finish ? g.ldc : g.waiting_stride;
  const float* residual = g.finish && g.residual ? g.residual + row * g.ldr + first : nullptr;
  const bool rectify = g.finish && g.act == Unary::kRelu;
  const BiasKind bias_kind = g.finish ? g.bias_kind : BiasKind::kNone;
  for (int p = 0; p < panels; ++p) {
    const int64_t at = p * kPanelColumns, left = g.n - first - at;
    const int64_t columns = left < kPanelColumns ? left : kPanelColumns;
    F32x16 bias = broadcast(0.0f);
    if (bias_kind == BiasKind::kPerColumn) bias = load_some(g.bias + first + at, columns);
    for (int r = 0; r < rows; ++r) {
      F32x16 v = load(sums + (r * panels + p) * kLanes);
      if (adds) v = load_some(waiting + r * g.waiting_stride + at, columns) + v;
      if (g.finish && g.scale != 1) v = v * broadcast(g.scale);
      if (bias_kind == BiasKind::kPerRow) bias = broadcast(g.bias[row + r]);
      if (bias_kind != BiasKind::kNone) v = v + bias;
      if (residual) v = v + load_some(residual + r * g.ldr + at, columns);
      if (rectify) v = max(broadcast(0.0f), v);
      if (columns < kPanelColumns) {
        store_partial(c + r * ldc + at, v, columns);
      } else {
        store(c + r * ldc + at, v);
      }
    }
  }
}

INFERKIT_INLINE void activate_pairs(const PairTarget& g, int64_t row, int64_t rows, int64_t first, int64_t width) {
  const UnaryFn act = kVmath.unary[static_cast<size_t>(g.act)];
  const int64_t column = first * kPanelColumns;
  const int64_t columns = column + width * kPanelColumns < g.n ? width * kPanelColumns : g.n - column;
  for (int64_t r = row; r < row + rows; ++r) {
    float* c = g.c + r * g.ldc + column;
    act(c, c, columns, g.act_alpha, g.act_beta);
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
