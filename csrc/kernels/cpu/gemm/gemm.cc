#include "kernels/cpu/gemm/gemm.h"

#include <algorithm>

#include "kernels/cpu/gemm64/gemm64.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit::kernels {
namespace {

/// A thread is worth calling for so many multiply-adds: about 10 us of work. And a piece of a product in a batch.
constexpr int64_t kWorkPerThread = 1 << 19, kLeastWork = 1 << 18;
/// Fewer rows take as long as these: what takes the time is reading B.
constexpr int64_t kReadingRows = 4;

/// What is computed between two questions whether to go on: some 5 ms. Parts are no smaller than this many rows and
/// panels, of which one read of B, or of A, serves enough.
constexpr int64_t kWorkPerPart = int64_t{1} << 28, kRowsPerPart = 96, kPanelsPerPart = 4;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// The product of the active tier.
inline auto product_of(const GemmArgs&) { return gemm_kernels().gemm; }
inline auto product_of(const GemmArgs64&) { return gemm64_kernels().gemm; }
inline auto product_of(const GemmArgsBf16&) { return gemm_bf16_kernels().gemm; }

/// The arguments of rows [row, row_end) and panels [panel, panel_end).
template <class T>
GemmArgsOf<T> part_of(GemmArgsOf<T> g, int64_t row, int64_t row_end, int64_t panel, int64_t panel_end) {
  constexpr int64_t kPanelColumns = kPanelColumnsOf<T>;
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

/// Pieces that a product is cut into: rows, or columns of whole panels.
struct Cut {
  int64_t pieces = 1;
  bool by_rows = false;

  template <class T>
  GemmArgsOf<T> part(const GemmArgsOf<T>& whole, int64_t i) const {
    const int64_t panels = ceil_div(whole.n, kPanelColumnsOf<T>), units = by_rows ? whole.m : panels;
    const int64_t begin = units * i / pieces, end = units * (i + 1) / pieces;
    return by_rows ? part_of(whole, begin, end, 0, panels) : part_of(whole, 0, whole.m, begin, end);
  }
};

/// Columns where that leaves wide pieces: each thread then reads its own part of B. Else rows, in whole tiles.
template <class T>
Cut cut(int64_t m, int64_t n, int64_t pieces) {
  const int64_t panels = ceil_div(n, kPanelColumnsOf<T>);
  const bool by_rows = panels < 4 * pieces && m >= 2 * pieces;
  return {std::clamp<int64_t>(pieces, 1, by_rows ? m : panels), by_rows};
}

/// The sums are those of the whole product, whatever part of its columns is computed.
template <class T>
GemmArgsOf<T> with_chunk(GemmArgsOf<T> g) {
  if (g.k_chunk == 0) g.k_chunk = GemmOf<T>::chunk(sum_chunk(g.k, g.n));
  return g;
}

int64_t threads_for(int64_t work, ThreadPool* pool, int max_threads) {
  return std::min<int64_t>(pool ? std::min(max_threads, pool->size()) : 1, work / kWorkPerThread);
}

/// In parts, which give the same bits.
template <class T>
void gemm_in_parts(const GemmArgsOf<T>& args, RunControl& control) {
  constexpr int64_t kPanelColumns = kPanelColumnsOf<T>;
  const auto gemm = product_of(args);
  const GemmArgsOf<T> whole = with_chunk(args);
  const int64_t panels = ceil_div(args.n, kPanelColumns), column_work = std::max<int64_t>(1, args.k * kPanelColumns);
  const int64_t width = std::clamp(kWorkPerPart / column_work / kRowsPerPart, std::min(kPanelsPerPart, panels), panels);
  const int64_t height =
      std::clamp(kWorkPerPart / column_work / width, std::min(kRowsPerPart, args.m), std::max<int64_t>(args.m, 1));
  for (int64_t panel = 0; panel < panels; panel += width) {
    for (int64_t row = 0; row < args.m; row += height) {
      if (!control.go_on()) return;
      gemm(part_of(whole, row, std::min(args.m, row + height), panel, std::min(panels, panel + width)));
    }
  }
}

template <class T>
bool is_long(const GemmArgsOf<T>& args) {
  return args.m * args.n * args.k > kWorkPerPart;
}

/// On the calling thread, under its control where it is long.
template <class T>
void gemm_alone(const GemmArgsOf<T>& args) {
  RunControl* const control = is_long(args) ? RunControl::current() : nullptr;
  if (control) return gemm_in_parts(args, *control);
  product_of(args)(args);
}

/// Panels are packed each by itself; `column` is what a column of B is away from the one before it. P holds kPer
/// elements of K.
template <class P, int64_t kPer = 1>
void pack_in_parts(void (*pack)(const float*, int64_t, int64_t, int64_t, P*), int64_t column, const float* b,
                   int64_t ldb, int64_t k, int64_t n, P* packed) {
  constexpr int64_t kElementsPerPart = int64_t{1} << 24;
  if (k * n <= kElementsPerPart) return pack(b, ldb, k, n, packed);
  const int64_t panels = ceil_div(n, kPanelColumns);
  const int64_t width = std::max<int64_t>(1, kElementsPerPart / (k * kPanelColumns));
  for_parts(ceil_div(panels, width), [&](int64_t i) {
    const int64_t first = i * width * kPanelColumns;
    pack(b + first * column, ldb, k, std::min(n - first, width * kPanelColumns), packed + first * ceil_div(k, kPer));
  });
}

template <class T>
void gemm_parallel(const GemmArgsOf<T>& args, ThreadPool* pool, int max_threads) {
  const int64_t work = std::max(args.m, kReadingRows) * args.n * args.k;
  int64_t threads = threads_for(work, pool, max_threads);
  if (threads <= 1) return gemm_alone(args);
  const GemmArgsOf<T> whole = with_chunk(args);
  // Twice as many pieces as threads, where they stay large, so that a thread that wakes late does not hold up the rest.
  if (work / threads >= 4 * kWorkPerThread) threads *= 2;
  const Cut pieces = cut<T>(args.m, args.n, threads);
  pool->parallel_for(pieces.pieces, max_threads, [&](int64_t i) { gemm_alone(pieces.part(whole, i)); });
}

template <class T>
void gemm_batch(const GemmBatch& batch, const FunctionRef<GemmArgsOf<T>(int64_t, int64_t)>& operands, ThreadPool* pool,
                int max_threads) {
  if (batch.count <= 0 || batch.m <= 0 || batch.n <= 0) return;
  if (batch.count == 1) return gemm_parallel(operands(0, 0), pool, max_threads);
  const int64_t each = batch.m * batch.n * batch.k;
  const int64_t threads = threads_for(batch.count * each, pool, max_threads);
  // Few products are cut, but no finer than is worth a hand-over.
  constexpr int64_t kTasksPerThread = 4;
  const int64_t wanted = ceil_div(kTasksPerThread * threads, batch.count);
  const Cut pieces = batch.packs ? Cut{} : cut<T>(batch.m, batch.n, std::min(wanted, each / kLeastWork));
  const int64_t tasks = batch.count * pieces.pieces;
  if (threads <= 1 || batch.slots < threads || tasks < threads) {
    for (int64_t i = 0; i < batch.count && RunControl::goes_on(); ++i) gemm_parallel(operands(i, 0), pool, max_threads);
    return;
  }
  // Of small products several at a time.
  const int64_t step = std::clamp<int64_t>(kLeastWork * pieces.pieces / std::max<int64_t>(each, 1), 1,
                                           std::max<int64_t>(1, tasks / (kTasksPerThread * threads)));
  pool->parallel_for(ceil_div(tasks, step), static_cast<int>(threads), [&](int64_t i, int64_t slot) {
    for (int64_t t = i * step; t < std::min(tasks, (i + 1) * step); ++t) {
      const GemmArgsOf<T> whole = with_chunk(operands(t / pieces.pieces, slot));
      gemm_alone(pieces.part(whole, t % pieces.pieces));
    }
  });
}

}  // namespace

size_t packed_b_elements(int64_t k, int64_t n) {
  return static_cast<size_t>(ceil_div(n, kPanelColumns) * k * kPanelColumns);
}
void pack_b(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed) {
  pack_in_parts(gemm_kernels().pack_b, 1, b, ldb, k, n, packed);
}
void pack_b_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed) {
  pack_in_parts(gemm_kernels().pack_b_transposed, ldb, b, ldb, k, n, packed);
}

void gemm_f32(const GemmArgs& args) { gemm_alone(args); }
void gemm_f32_parallel(const GemmArgs& args, ThreadPool* pool, int max_threads) {
  gemm_parallel(args, pool, max_threads);
}
void gemm_f32_batch(const GemmBatch& batch, const FunctionRef<GemmArgs(int64_t, int64_t)>& operands, ThreadPool* pool,
                    int max_threads) {
  gemm_batch<float>(batch, operands, pool, max_threads);
}

void gemm_f64(const GemmArgs64& args) { gemm_alone(args); }
void gemm_f64_parallel(const GemmArgs64& args, ThreadPool* pool, int max_threads) {
  gemm_parallel(args, pool, max_threads);
}
void gemm_f64_batch(const GemmBatch& batch, const FunctionRef<GemmArgs64(int64_t, int64_t)>& operands, ThreadPool* pool,
                    int max_threads) {
  gemm_batch<double>(batch, operands, pool, max_threads);
}

size_t packed_b_bf16_elements(int64_t k, int64_t n) {
  return static_cast<size_t>(ceil_div(n, kPanelColumns) * ceil_div(k, 2) * kPanelColumns);
}
void pack_b(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed) {
  pack_in_parts<uint32_t, 2>(gemm_bf16_kernels().pack_b, 1, b, ldb, k, n, packed);
}
void pack_b_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed) {
  pack_in_parts<uint32_t, 2>(gemm_bf16_kernels().pack_b_transposed, ldb, b, ldb, k, n, packed);
}
void pack_a_bf16(const float* a, int64_t lda, int64_t m, int64_t k, uint32_t* packed) {
  constexpr int64_t kElementsPerPart = int64_t{1} << 24;
  const int64_t pairs = ceil_div(k, 2), rows = std::max<int64_t>(1, kElementsPerPart / std::max<int64_t>(k, 1));
  for_parts(ceil_div(m, rows), [&](int64_t i) {
    const int64_t first = i * rows;
    gemm_bf16_kernels().pack_a(a + first * lda, lda, std::min(rows, m - first), k, packed + first * pairs);
  });
}

void gemm_bf16(const GemmArgsBf16& args) { gemm_alone(args); }
void gemm_bf16_parallel(const GemmArgsBf16& args, ThreadPool* pool, int max_threads) {
  gemm_parallel(args, pool, max_threads);
}
void gemm_bf16_batch(const GemmBatch& batch, const FunctionRef<GemmArgsBf16(int64_t, int64_t)>& operands,
                     ThreadPool* pool, int max_threads) {
  gemm_batch<BFloat16>(batch, operands, pool, max_threads);
}

}  // namespace inferkit::kernels
