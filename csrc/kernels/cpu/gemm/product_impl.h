// GEMM of float or double; part of gemm_impl.h and of the family gemm64. Micro-kernels (tile) hold kRows x kPanels
// vectors of sums in registers and run over K ascending, chunk by chunk: blocks of N and M only choose the order in
// which tiles run, and a block of K is of whole chunks and goes on from the sums that the last one left in C, so
// blocking cannot touch a bit.
#pragma once
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/gemm/sums_impl.h"

namespace inferkit::kernels::INFERKIT_TIER {

extern const VmathKernels kVmath;

namespace {

/// K in one go, up to which A's rows and B's panels get along in L1.
template <class T>
inline constexpr int64_t kBlockDepth = 3072 / sizeof(T);
/// There are activations for float alone.
template <class T>
inline constexpr bool kActivates = sizeof(T) == sizeof(float);
/// Bytes of B that the rows of A pass over before the next ones come: half of a small L2.
constexpr int64_t kBlockBytes = 768 << 10;

/// A block of K: does it go on from C, and does it end with the scale, the bias, the residual and ReLU?
template <class T>
struct TileArgs : GemmArgsOf<T> {
  bool resume = false, finish = true;
};

/// Adds the bias. It comes last, so that sums which are small beside it are not rounded to its last place at every
/// step.
template <class V, int kRows, int kPanels>
INFERKIT_INLINE void add_bias(V (&acc)[kRows][kPanels], const TileArgs<typename V::Scalar>& g, int64_t row,
                              int64_t column, int64_t last) {
  constexpr int kPanelColumns = kLanesOf<V>;
  if (g.bias_kind == BiasKind::kPerRow) {
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      const V bias = broadcast(g.bias[row + r]);
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = acc[r][p] + bias;
    }
  } else if (g.bias_kind == BiasKind::kPerColumn) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      const typename V::Scalar* at = g.bias + column + p * kPanelColumns;
      const V bias = p == kPanels - 1 && last < kPanelColumns ? load_partial(at, last) : load(at);
      _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) acc[r][p] = acc[r][p] + bias;
    }
  }
}

template <class V, int kRows, int kPanels>
INFERKIT_INLINE void multiply(V (&acc)[kRows][kPanels], float factor) {
  const V scale = broadcast(static_cast<typename V::Scalar>(factor));
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = acc[r][p] * scale;
  }
}

/// C[row .. row + kRows) x panels [panel .. panel + kPanels): product, scale, bias, residual, ReLU.
template <class T, int kRows, int kPanels>
void tile(const TileArgs<T>& g, int64_t row, int64_t panel) {
  using V = VectorOf<T>;
  constexpr int kPanelColumns = kLanesOf<V>;
  const T* a = g.a + row * g.lda;
  const T* b = g.b + panel * g.b_panel_stride;
  const int64_t column = panel * kPanelColumns;
  const int64_t last = g.n - column - (kPanels - 1) * kPanelColumns;  // columns of the last panel, or more
  T* c = g.c + row * g.ldc + column;
  V acc[kRows][kPanels];
  add_product(acc, a, g.lda, PanelsOfB<T>{b, g.b_k_stride, g.b_panel_stride}, g.k, g.k_chunk,
              Before<V>{g.resume ? c : nullptr, g.ldc, last});
  if (g.finish && g.scale != 1) multiply(acc, g.scale);
  if (g.finish) add_bias(acc, g, row, column, last);
  const T* residual = g.finish && g.residual ? g.residual + row * g.ldr + column : nullptr;
  [[maybe_unused]] const bool rectify = g.finish && g.act == Unary::kRelu;
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      const int64_t at = p * kPanelColumns;
      const bool partial = p == kPanels - 1 && last < kPanelColumns;
      V v = acc[r][p];
      if (residual) v = v + (partial ? load_partial(residual + r * g.ldr + at, last) : load(residual + r * g.ldr + at));
      if constexpr (kActivates<T>) {
        if (rectify) v = max(broadcast(0.0f), v);
      }
      if (partial) {
        store_partial(c + r * g.ldc + at, v, last);
      } else {
        store(c + r * g.ldc + at, v);
      }
    }
  }
}

template <class T>
struct GemmTiles {
  template <int kRows, int kPanels>
  struct Tile {
    static void run(const TileArgs<T>& g, int64_t row, int64_t panel) { tile<T, kRows, kPanels>(g, row, panel); }
  };
};

/// The activation of those rows, which are still in L1. The functions are those of vmath: fused or not, the same bits.
INFERKIT_INLINE void activate(const TileArgs<float>& g, int64_t row, int64_t rows, int64_t first, int64_t width) {
  const UnaryFn act = kVmath.unary[static_cast<size_t>(g.act)];
  const int64_t column = first * kPanelColumns;
  const int64_t columns = column + width * kPanelColumns < g.n ? width * kPanelColumns : g.n - column;
  for (int64_t r = row; r < row + rows; ++r) {
    float* c = g.c + r * g.ldc + column;
    act(c, c, columns, g.act_alpha, g.act_beta);
  }
}

template <class T>
void gemm(const GemmArgsOf<T>& args) {
  if (args.m <= 0 || args.n <= 0) return;
  constexpr int64_t kPanelColumns = kPanelColumnsOf<T>;
  TileArgs<T> g{args};
  if (g.k_chunk == 0) g.k_chunk = sum_chunk(g.k, g.n);
  const int64_t panels = ceil_div(g.n, kPanelColumns), row_tiles = ceil_div(g.m, kMaxRows);
  const int64_t chunks = g.k > 0 ? ceil_div(g.k, g.k_chunk) : 1;
  int64_t depths = 1, panel_block = panels;
  if (row_tiles > 1) {  // B comes by again: keep a block of it in L2, and A in L1
    // Sums wait in C between blocks of K, where a residual that is C itself would be overwritten.
    if (g.k > kBlockDepth<T> && g.residual != g.c) depths = ceil_div(g.k, kBlockDepth<T> * 2 / 3);
    if (depths > chunks) depths = chunks;
    const int64_t fit = kBlockBytes / (ceil_div(g.k + 1, depths) * kPanelColumns * static_cast<int64_t>(sizeof(T)));
    panel_block = ceil_div(panels, ceil_div(panels, fit < 4 ? 4 : fit));
  }
  for (int64_t first = 0; first < panels; first += panel_block) {
    const int64_t width = first + panel_block < panels ? panel_block : panels - first;
    for (int64_t d = 0; d < depths; ++d) {
      const int64_t k = part_start(chunks, depths, d) * g.k_chunk;
      const int64_t end = d + 1 < depths ? part_start(chunks, depths, d + 1) * g.k_chunk : args.k;
      g.k = end - k;
      g.a = args.a + k;
      g.b = args.b + k * args.b_k_stride;
      g.resume = d > 0;
      g.finish = d + 1 == depths;
      for (int64_t t = 0; t < row_tiles; ++t) {
        const int64_t row = part_start(g.m, row_tiles, t), rows = part_start(g.m, row_tiles, t + 1) - row;
        row_of_tiles<TileArgs<T>, GemmTiles<T>::template Tile>(g, row, rows, first, width);
        if constexpr (kActivates<T>) {
          if (g.finish && g.act != Unary::kIdentity && g.act != Unary::kRelu) activate(g, row, rows, first, width);
        }
      }
    }
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
