// softmax(scale Q K' + mask) V as one kernel, with the bits of the products, of the softmax and of what lies between
// them as kernels of their own: Q K' and the product with V are sums of what a run computes, in chunks of kEvenChunk
// (kernels/summation.h), and each row is folded as softmax_rows folds it.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/nest.h"

namespace inferkit::kernels::cuda {

/// How scores are scaled: an operation of its own, which rounds.
enum class AttentionScale : uint8_t { kNone, kMultiply, kDivide };

/// For each of batch.n: q [rows, size], k [keys, size], v [keys, value_size], y [rows, value_size], all with strides of
/// their own, where those of v's columns are 1. mask, which may be null, is added to the scores; its strides may be 0.
/// Operands of the batch's nest: q, k, v, mask, y. Nothing is empty.
struct AttentionParams {
  const float *q, *k, *v, *mask;
  float* y;
  int64_t rows;
  int32_t keys, size, value_size;
  int32_t line;   // attention_line() of both sizes
  int32_t piece;  // keys that are in shared memory at a time: all, or a multiple of kEvenChunk
  AttentionScale how;
  float scale;
  int64_t q_row, q_col, k_row, k_col, v_row, mask_row, mask_col, y_row, y_col;
  Nest<5> batch;
};

/// attention_<rows of a warp>: a block takes kAttentionWarps times as many rows. gridDim: rows, 1, batch. Values have
/// kMostValueSize columns at most.
inline constexpr int kAttentionWarps = 8;
inline constexpr unsigned kAttentionThreads = kAttentionWarps * 32;
inline constexpr int kMostValueSize = 128;

/// Elements from one line of keys or values in shared memory to the next: an odd number of quads, so that threads that
/// read the same quad of neighbouring lines do so from different banks.
constexpr int32_t attention_line(int32_t size, int32_t value_size) {
  return (((size > value_size ? size : value_size) + 3) / 4 | 1) * 4;
}
/// The columns of a line of values that a warp reads: all its lanes do, whatever the line has.
constexpr int32_t columns_read(int32_t value_size) { return value_size <= 32 ? 32 : value_size <= 64 ? 64 : 128; }
/// Queries and scores of all rows, and two pieces of the keys and values; as lanes without a key read a line, too, at
/// least a line for each of them, and what the last line of values lacks of the columns that are read.
constexpr size_t attention_shared(int rows_of_warp, const AttentionParams& p) {
  const int rows = rows_of_warp * kAttentionWarps;
  const int lines = 2 * p.piece > 32 ? 2 * p.piece : 32, columns = columns_read(p.value_size);
  const int behind = columns > p.line ? columns - p.line : 0;
  return static_cast<size_t>(rows * (p.size + p.keys) + lines * p.line + behind) * sizeof(float);
}

}  // namespace inferkit::kernels::cuda
