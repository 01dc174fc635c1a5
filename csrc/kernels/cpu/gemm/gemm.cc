#include "kernels/cpu/gemm/gemm.h"

#include <algorithm>

#include "platform/thread_pool.h"

namespace inferkit::kernels {
namespace {

/// A thread is worth waking for so many multiply-adds: about 10 us of work.
constexpr int64_t kWorkPerThread = 1 << 20;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// The arguments of rows [row, row_end) and panels [panel, panel_end).
GemmArgs part_of(GemmArgs g, int64_t row, int64_t row_end, int64_t panel, int64_t panel_end) {
  const int64_t column = panel * kPanelColumns;
  g.m = row_end - row;
  g.n = std::min(g.n, panel_end * kPanelColumns) - column;
  g.a += row * g.lda;
  g.b += panel * g.b_panel_stride;
  g.c += row * g.ldc + column;
  if (g.residual) g.residual += row * g.ldr + column;
  if (g.bias_kind == BiasKind::kPerColumn) g.bias += column;
  if (g.bias_kind == BiasKind::kPerRow) g.bias += row;
  return g;
}

}  // namespace

int gemm_k_segments(int64_t k, int64_t n) {
  if (k < 32 || n > 4 * kPanelColumns) return 1;
  return n > 2 * kPanelColumns ? 2 : 4;
}

size_t packed_b_elements(int64_t k, int64_t n) {
  return static_cast<size_t>(ceil_div(n, kPanelColumns) * k * kPanelColumns);
}

void gemm_f32(const GemmArgs& args) { gemm_kernels().gemm(args); }
void pack_b(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed) {
  gemm_kernels().pack_b(b, ldb, k, n, packed);
}
void pack_b_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed) {
  gemm_kernels().pack_b_transposed(b, ldb, k, n, packed);
}

void gemm_f32_parallel(const GemmArgs& args, ThreadPool* pool, int max_threads) {
  const auto gemm = gemm_kernels().gemm;
  const int64_t work = args.m * args.n * args.k;
  int64_t threads = std::min<int64_t>(pool ? std::min(max_threads, pool->size()) : 1, work / kWorkPerThread);
  if (threads <= 1) return gemm(args);
  GemmArgs whole = args;
  if (whole.k_segments == 0) whole.k_segments = gemm_k_segments(args.k, args.n);
  const int64_t panels = ceil_div(args.n, kPanelColumns);
  // Columns where that leaves wide pieces: each thread then reads its own part of B. Else rows, in whole tiles. Twice
  // as many pieces as threads, where they stay large, so that a thread that wakes late does not hold up the rest.
  if (work / threads >= 4 * kWorkPerThread) threads *= 2;
  const bool by_rows = panels < 4 * threads && args.m >= 2 * threads;
  const int64_t units = by_rows ? args.m : panels, pieces = std::min(threads, units);
  pool->parallel_for(pieces, max_threads, [&](int64_t i) {
    const int64_t begin = units * i / pieces, end = units * (i + 1) / pieces;
    gemm(by_rows ? part_of(whole, begin, end, 0, panels) : part_of(whole, 0, args.m, begin, end));
  });
}

}  // namespace inferkit::kernels
