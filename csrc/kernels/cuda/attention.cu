#include "kernels/cuda/attention.h"
#include "kernels/cuda/copies.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/tile_sums.h"
#include "kernels/cuda/warp.h"
#include "kernels/summation.h"

namespace inferkit::kernels::cuda {
namespace {

// A warp takes rows of the queries from the scores to the answer. Lane l makes the scores of keys l, l + 32, ..., which
// are the elements that it holds of the CPU's 64 lanes when the row is folded, and columns l, l + 32, ... of the
// answer: between lanes go only the weights, through shared memory. There a warp's rows lie side by side, up to four of
// them: all its threads read the queries and weights of several rows at once.

template <int kRows>
inline constexpr int kAbreast = kRows < 4 ? kRows : 4;  // rows side by side

INFERKIT_DEVICE int warp_of() { return static_cast<int>(threadIdx.x) / kWarp; }

/// Element `at` of kRows rows, of which each kAbreast have n elements.
template <int kRows>
INFERKIT_DEVICE void read_rows(float (&to)[kRows], const float* rows, int n, int at) {
  static_assert(kRows == 2 || kRows % 4 == 0);
  if constexpr (kRows == 2) {
    to[0] = rows[2 * at];
    to[1] = rows[2 * at + 1];
  } else {
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      const float4 v = load4(rows + (i / 4 * n + at) * 4);
      to[i] = v.x;
      to[i + 1] = v.y;
      to[i + 2] = v.z;
      to[i + 3] = v.w;
    }
  }
}
template <int kRows>
INFERKIT_DEVICE void write_rows(const float (&from)[kRows], float* rows, int n, int at) {
  if constexpr (kRows == 2) {
    rows[2 * at] = from[0];
    rows[2 * at + 1] = from[1];
  } else {
#pragma unroll
    for (int i = 0; i < kRows; i += 4) {
      store4(rows + (i / 4 * n + at) * 4, float4{from[i], from[i + 1], from[i + 2], from[i + 3]});
    }
  }
}

/// The queries of the block's rows, as read_rows() wants them.
template <int kRows>
INFERKIT_DEVICE void bring_queries(float* to, const AttentionParams& p, const float* from, int rows) {
#pragma unroll 1
  for (int row = warp_of(); row < rows; row += kAttentionWarps) {
    float* const target = to + row / kAbreast<kRows> * p.size * kAbreast<kRows> + row % kAbreast<kRows>;
#pragma unroll 1
    for (int at = lane_of(); at < p.size; at += kWarp) {
      begin_copy<1>(target + at * kAbreast<kRows>, from + row * p.q_row + at * p.q_col, true);
    }
  }
}
/// Lines of neighbours, by all threads of the block: as many for a line as it has quads, rounded up to a power of two.
INFERKIT_DEVICE void bring_lines(float* to, int pitch, const float* from, int64_t row, int rows, int columns) {
  const int t = static_cast<int>(threadIdx.x), shift = columns <= 16 ? 2 : columns <= 32 ? 3 : columns <= 64 ? 4 : 5;
  const int at = (t & ((1 << shift) - 1)) * 4, valid = columns - at,
            step = static_cast<int>(kAttentionThreads) >> shift;
  if (valid <= 0) return;
  const float* source = from + (t >> shift) * row + at;
  float* target = to + (t >> shift) * pitch + at;
#pragma unroll 1
  for (int line = t >> shift; line < rows; line += step, source += step * row, target += step * pitch) {
    if (valid >= 4 && (reinterpret_cast<uintptr_t>(source) & 15) == 0) {
      begin_copy<4>(target, source, true);
    } else {
#pragma unroll 1
      for (int e = 0; e < 4 && e < valid; ++e) begin_copy<1>(target + e, source + e, true);
    }
  }
}
/// The same where neighbours are in other lines.
INFERKIT_DEVICE void bring_columns(float* to, int pitch, const float* from, int64_t row, int64_t col, int rows,
                                   int columns) {
#pragma unroll 1
  for (int column = warp_of(); column < columns; column += kAttentionWarps) {
#pragma unroll 1
    for (int line = lane_of(); line < rows; line += kWarp) {
      begin_copy<1>(to + line * pitch + column, from + line * row + column * col, true);
    }
  }
}
INFERKIT_DEVICE void bring_end() {
  close_copies();
  await_copies<0>();
  __syncthreads();
}

/// Sums of kRows x kColumns: chunks that are complete, and the one that grows.
template <int kRows, int kColumns>
struct EvenSums {
  float whole[kRows][kColumns], part[kRows][kColumns];
};
template <int kRows, int kColumns>
INFERKIT_DEVICE void begin_chunk(EvenSums<kRows, kColumns>& sums) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) sums.part[i][j] = 0;
  }
}
template <int kRows, int kColumns>
INFERKIT_DEVICE void end_even_chunk(EvenSums<kRows, kColumns>& sums, bool first) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      sums.whole[i][j] = first ? sums.part[i][j] : __fadd_rn(sums.whole[i][j], sums.part[i][j]);
    }
  }
}
INFERKIT_DEVICE int end_of_chunk(int from, int n) {
  constexpr int kChunk = static_cast<int>(kEvenChunk);
  return n - from < kChunk ? n : from + kChunk;
}
/// Adds a term to each sum.
template <int kRows, int kColumns>
INFERKIT_DEVICE void add_even_term(EvenSums<kRows, kColumns>& sums, const float (&a)[kRows],
                                   const float (&b)[kColumns]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) sums.part[i][j] = __fmaf_rn(a[i], b[j], sums.part[i][j]);
  }
}

/// Products of a warp's rows with keys `first` + lane + 32 j of a piece whose lines are at `ks`.
template <int kRows, int kGroups>
INFERKIT_DEVICE void score_keys(const AttentionParams& p, const float* qs, const float* ks, float* scores, int first) {
  const float* const mine = ks + lane_of() * p.line;
  EvenSums<kRows, kGroups> sums{};
#pragma unroll 1
  for (int from = 0; from < p.size; from += static_cast<int>(kEvenChunk)) {
    const int end = end_of_chunk(from, p.size);
    begin_chunk(sums);
    int depth = from;
#pragma unroll 1
    for (; depth + 4 <= end; depth += 4) {
      float b[4][kGroups], a[kRows];
#pragma unroll
      for (int j = 0; j < kGroups; ++j) {
        const float4 four = load4(mine + j * kWarp * p.line + depth);
        b[0][j] = four.x;
        b[1][j] = four.y;
        b[2][j] = four.z;
        b[3][j] = four.w;
      }
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        read_rows(a, qs, p.size, depth + u);
        add_even_term(sums, a, b[u]);
      }
    }
#pragma unroll 1
    for (; depth < end; ++depth) {
      float b[kGroups], a[kRows];
#pragma unroll
      for (int j = 0; j < kGroups; ++j) b[j] = mine[j * kWarp * p.line + depth];
      read_rows(a, qs, p.size, depth);
      add_even_term(sums, a, b);
    }
    end_even_chunk(sums, from == 0);
  }
#pragma unroll
  for (int j = 0; j < kGroups; ++j) {
    float column[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) column[i] = sums.whole[i][j];
    const int key = first + lane_of() + j * kWarp;
    if (key < p.keys) write_rows(column, scores, p.keys, key);
  }
}

/// The tree over the CPU's 64 lanes, of which a thread holds numbers `lane` and `lane` + 32; for several rows side by
/// side, as fold_tree of rows.cu for one. The result is in every thread.
template <int kRows, class Combine>
INFERKIT_DEVICE void fold_rows(F32x16 (&low)[kRows], const F32x16 (&high)[kRows], const Combine& combine) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    low[i] = combine(low[i], F32x16{__shfl_down_sync(kWholeWarp, low[i].v, 16u)});
    low[i] = combine(low[i], combine(high[i], F32x16{__shfl_down_sync(kWholeWarp, high[i].v, 16u)}));
  }
#pragma unroll
  for (unsigned by = 8; by > 0; by /= 2) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) low[i] = combine(low[i], F32x16{__shfl_down_sync(kWholeWarp, low[i].v, by)});
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) low[i] = F32x16{__shfl_sync(kWholeWarp, low[i].v, 0)};
}

INFERKIT_DEVICE float scaled_score(const AttentionParams& p, float product) {
  if (p.how == AttentionScale::kMultiply) return __fmul_rn(product, p.scale);
  return p.how == AttentionScale::kDivide ? __fdiv_rn(product, p.scale) : product;
}

/// Products of kRows rows, of which `valid` are there, become weights: the row of softmax_rows, where a thread reads
/// none but those that it wrote. A row has fewer elements than one block of the CPU's fold; what that adds for places
/// behind the end changes nothing, as -inf is larger than nothing and exp(-inf - peak) is 0, or NaN where every element
/// is.
template <int kRows>
INFERKIT_DEVICE void weigh_keys(const AttentionParams& p, const float* mask, int valid, float* scores) {
  const auto larger = [](F32x16 a, F32x16 b) { return blend(is_nan(a), a, max(a, b)); };
  const auto add = [](F32x16 a, F32x16 b) { return a + b; };
  // Calls use(i, value) for element `key` of each row, which becomes what that gives.
  const auto change = [&](int key, const auto& use) {
    float values[kRows];
    read_rows(values, scores, p.keys, key);
#pragma unroll
    for (int i = 0; i < kRows; ++i) values[i] = use(i, values[i]);
    write_rows(values, scores, p.keys, key);
  };
  F32x16 peak[kRows], sum[kRows], high[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) peak[i] = high[i] = F32x16{-__builtin_inff()};
#pragma unroll 1
  for (int key = lane_of(); key < p.keys; key += kWarp) {
    const bool is_high = key / kWarp % 2 != 0;
    const float* addend = mask ? mask + key * p.mask_col : nullptr;
    change(key, [&](int i, float product) {
      F32x16 score{scaled_score(p, product)};
      if (mask && i < valid) {
        score = score + F32x16{*addend};
        addend += p.mask_row;
      }
      if (is_high) {
        high[i] = larger(high[i], score);
      } else {
        peak[i] = larger(peak[i], score);
      }
      return score.v;
    });
  }
  fold_rows(peak, high, larger);
#pragma unroll
  for (int i = 0; i < kRows; ++i) sum[i] = high[i] = F32x16{0};
#pragma unroll 1
  for (int key = lane_of(); key < p.keys; key += kWarp) {
    const bool is_high = key / kWarp % 2 != 0;
    change(key, [&](int i, float score) {
      const F32x16 raised = exp(F32x16{score} - peak[i]);
      if (is_high) {
        high[i] = high[i] + raised;
      } else {
        sum[i] = sum[i] + raised;
      }
      return raised.v;
    });
  }
  fold_rows(sum, high, add);
#pragma unroll
  for (int i = 0; i < kRows; ++i) sum[i] = F32x16{1.0f} / sum[i];
#pragma unroll 1
  for (int key = lane_of(); key < p.keys; key += kWarp) {
    change(key, [&](int i, float raised) { return (F32x16{raised} * sum[i]).v; });
  }
}

/// Adds the values of keys `first` and behind, a piece whose lines are at `vs`, with their weights.
template <int kRows, int kColumns>
INFERKIT_DEVICE void mix_values(EvenSums<kRows, kColumns>& sums, const AttentionParams& p, const float* weights,
                                const float* vs, int first, int count) {
#pragma unroll 1
  for (int from = 0; from < count; from += static_cast<int>(kEvenChunk)) {
    const int end = end_of_chunk(from, count);
    begin_chunk(sums);
#pragma unroll(kRows < 8 ? 4 : 2)
    for (int key = from; key < end; ++key) {
      float w[kRows], values[kColumns];
      const float* const line = vs + key * p.line + lane_of();
#pragma unroll
      for (int j = 0; j < kColumns; ++j) values[j] = line[j * kWarp];
      read_rows(w, weights, p.keys, first + key);
      add_even_term(sums, w, values);
    }
    end_even_chunk(sums, first + from == 0);
  }
}

/// The rows of one head that a block takes. Pieces of the keys, and then of the values, come through two halves of
/// shared memory, each while the last one is in use.
struct AttentionRows {
  const float *q, *k, *v, *mask;
  float* y;
  int64_t first;
  float *queries, *scores, *pieces;
  int count;  // of pieces of the keys, and of the values
};

INFERKIT_DEVICE float* piece_of(const AttentionParams& p, const AttentionRows& b, int i) {
  return b.pieces + i % 2 * p.piece * p.line;
}
INFERKIT_DEVICE int keys_from(const AttentionParams& p, int first) {
  return p.keys - first < p.piece ? p.keys - first : p.piece;
}
INFERKIT_DEVICE void bring_keys(const AttentionParams& p, const AttentionRows& b, int i) {
  const int first = i * p.piece, n = keys_from(p, first);
  const float* const from = b.k + first * p.k_row;
  if (p.k_col == 1) {
    bring_lines(piece_of(p, b, i), p.line, from, p.k_row, n, p.size);
  } else {
    bring_columns(piece_of(p, b, i), p.line, from, p.k_row, p.k_col, n, p.size);
  }
}
INFERKIT_DEVICE void bring_values(const AttentionParams& p, const AttentionRows& b, int i) {
  const int first = (i - b.count) * p.piece, n = keys_from(p, first);
  bring_lines(piece_of(p, b, i), p.line, b.v + first * p.v_row, p.v_row, n, p.value_size);
}

template <int kRows>
INFERKIT_DEVICE void score_piece(const AttentionParams& p, const AttentionRows& b, int i) {
  const float *const qs = b.queries + warp_of() * kRows * p.size, *const ks = piece_of(p, b, i);
  float* const to = b.scores + warp_of() * kRows * p.keys;
  const int first = i * p.piece, n = keys_from(p, first);
  int key = 0;
#pragma unroll 1
  for (; key + kWarp < n; key += 2 * kWarp) score_keys<kRows, 2>(p, qs, ks + key * p.line, to, first + key);
  if (key < n) score_keys<kRows, 1>(p, qs, ks + key * p.line, to, first + key);
}

template <int kRows, int kColumns>
INFERKIT_DEVICE void mix_pieces(const AttentionParams& p, const AttentionRows& b, int64_t row) {
  EvenSums<kRows, kColumns> sums{};
  const float* const weights = b.scores + warp_of() * kRows * p.keys;
#pragma unroll 1
  for (int i = 0; i < b.count; ++i) {
    const int first = i * p.piece;
    if (row < p.rows) mix_values(sums, p, weights, piece_of(p, b, b.count + i), first, keys_from(p, first));
    if (i + 1 == b.count) break;
    bring_end();
    if (i + 2 < b.count) bring_values(p, b, b.count + i + 2);
  }
  float* y = b.y + row * p.y_row + lane_of() * p.y_col;
#pragma unroll
  for (int i = 0; i < kRows; ++i, y += p.y_row) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      if (row + i < p.rows && lane_of() + j * kWarp < p.value_size) y[j * kWarp * p.y_col] = sums.whole[i][j];
    }
  }
}

template <int kRows>
INFERKIT_DEVICE void attend_rows(const AttentionParams& p, const AttentionRows& b) {
  const int64_t row = b.first + warp_of() * kRows;
  __syncthreads();  // the last rows have been used
  const auto rows = static_cast<int>(smaller(p.rows - b.first, kRows * kAttentionWarps));
  bring_queries<kRows>(b.queries, p, b.q + b.first * p.q_row, rows);
  bring_keys(p, b, 0);
  if (b.count > 1) bring_keys(p, b, 1);
  if (b.count == 1) bring_values(p, b, 1);
  bring_end();
#pragma unroll 1
  for (int i = 0; i < b.count; ++i) {
    if (row < p.rows) score_piece<kRows>(p, b, i);
    if (b.count == 1) break;  // all is there
    bring_end();
    if (i + 2 < b.count) {
      bring_keys(p, b, i + 2);
    } else {
      bring_values(p, b, i + 2);
    }
  }
#pragma unroll 1
  for (int i = 0; i < kRows && row + i < p.rows; i += kAbreast<kRows>) {
    const float* const mask = b.mask ? b.mask + (row + i) * p.mask_row : nullptr;
    weigh_keys<kAbreast<kRows>>(p, mask, static_cast<int>(smaller(p.rows - row - i, kAbreast<kRows>)),
                                b.scores + (warp_of() * kRows + i) * p.keys);
  }
  __syncwarp();
  if (p.value_size <= kWarp) {  // columns_read()
    mix_pieces<kRows, 1>(p, b, row);
  } else if (p.value_size <= 2 * kWarp) {
    mix_pieces<kRows, 2>(p, b, row);
  } else {
    mix_pieces<kRows, 4>(p, b, row);
  }
}

template <int kRows>
INFERKIT_DEVICE void attend(const AttentionParams& p, float* shared) {
  constexpr int kAll = kRows * kAttentionWarps;
  AttentionRows b{};
  b.queries = shared;
  b.scores = b.queries + kAll * p.size;
  b.pieces = b.scores + kAll * p.keys;
  b.count = (p.keys + p.piece - 1) / p.piece;
#pragma unroll 1
  for (int64_t z = blockIdx.z; z < p.batch.n; z += gridDim.z) {
    int64_t at[5];
    offsets_of(p.batch, z, at);
    b.q = p.q + at[0];
    b.k = p.k + at[1];
    b.v = p.v + at[2];
    b.mask = p.mask ? p.mask + at[3] : nullptr;
    b.y = p.y + at[4];
#pragma unroll 1
    for (b.first = int64_t{blockIdx.x} * kAll; b.first < p.rows; b.first += int64_t{gridDim.x} * kAll) {
      attend_rows<kRows>(p, b);
    }
  }
}

}  // namespace

INFERKIT_KERNEL(attention_2, AttentionParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  attend<2>(p, shared);
}
INFERKIT_KERNEL(attention_4, AttentionParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  attend<4>(p, shared);
}
INFERKIT_KERNEL(attention_8, AttentionParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  attend<8>(p, shared);
}

}  // namespace inferkit::kernels::cuda
