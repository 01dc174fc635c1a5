// What a block does with a tile of a product: see tile.h. The next step is read from global memory into registers while
// the last one is added from shared memory, where [depth][row] and [depth][column] lie. Lines are four elements longer
// than the tile, so that they begin in different banks. Convolutions cut their sums among threads in the same way.
#pragma once
#include "kernels/cuda/platform.h"
#include "kernels/cuda/tile.h"

namespace inferkit::kernels::cuda {
namespace {

INFERKIT_DEVICE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/// The terms `from` and behind it, up to kTileDepth of them, or kDepth, of the chunk that ends at `end`.
struct Step {
  int64_t from, end;
};
INFERKIT_DEVICE Step first_step(int64_t k, int64_t chunk) { return {0, smaller(k, chunk)}; }
template <int kDepth = kTileDepth>
INFERKIT_DEVICE Step step_after(Step s, int64_t k, int64_t chunk) {
  s.from += kDepth;
  return s.from < s.end ? s : Step{s.end, smaller(k, s.end + chunk)};
}
template <int kDepth = kTileDepth>
INFERKIT_DEVICE int terms_of(const Step& s) {
  return static_cast<int>(smaller(kDepth, s.end - s.from));
}
template <int kDepth = kTileDepth>
INFERKIT_DEVICE bool ends_chunk(const Step& s) {
  return s.from + kDepth >= s.end;
}

/// Four elements, `stride` apart, of which only the first `valid` are there; the others are 0.
INFERKIT_DEVICE float4 read_quad(const float* at, int64_t stride, int valid) {
  if (stride == 1 && valid >= 4 && (reinterpret_cast<uintptr_t>(at) & 15) == 0) return load4(at);
  float4 v{0, 0, 0, 0};
  if (valid > 0) v.x = at[0];
  if (valid > 1) v.y = at[stride];
  if (valid > 2) v.z = at[2 * stride];
  if (valid > 3) v.w = at[3 * stride];
  return v;
}
/// Four neighbours of one line.
INFERKIT_DEVICE void write_along(float* at, const float4& v) { store4(at, v); }
/// The same element of four lines.
INFERKIT_DEVICE void write_across(float* at, int pitch, const float4& v) {
  at[0] = v.x;
  at[pitch] = v.y;
  at[2 * pitch] = v.z;
  at[3 * pitch] = v.w;
}

/// The lanes of a warp are four rows of eight, so that they read few lines of each operand at once: a group of four
/// rows of a tile is kRowsApart behind the last one of its thread, a group of columns kColumnsApart.
constexpr int kRowsApart = 16, kColumnsApart = 32;

/// kQuads groups of four rows by as many of four columns.
template <int kQuads>
struct Sums {
  float of[4 * kQuads][4 * kQuads];
};

/// Adds one term to each sum.
template <int kQuads>
INFERKIT_DEVICE void add_term(Sums<kQuads>& sums, const float* a, const float* b) {
  float av[4 * kQuads], bv[4 * kQuads];
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const float4 u = load4(a + q * kRowsApart), v = load4(b + q * kColumnsApart);
    av[4 * q] = u.x;
    av[4 * q + 1] = u.y;
    av[4 * q + 2] = u.z;
    av[4 * q + 3] = u.w;
    bv[4 * q] = v.x;
    bv[4 * q + 1] = v.y;
    bv[4 * q + 2] = v.z;
    bv[4 * q + 3] = v.w;
  }
#pragma unroll
  for (int i = 0; i < 4 * kQuads; ++i) {
#pragma unroll
    for (int j = 0; j < 4 * kQuads; ++j) sums.of[i][j] = __fmaf_rn(av[i], bv[j], sums.of[i][j]);
  }
}

/// Adds the terms of a step. What lies behind the end of a chunk is not added: even zeros would change a -0.
template <int kQuads, int kPitchA, int kPitchB>
INFERKIT_DEVICE void add_terms(Sums<kQuads>& sums, const float* a, const float* b, int terms) {
  if (terms == kTileDepth) {
#pragma unroll(kQuads == 2 ? kTileDepth : 8)
    for (int depth = 0; depth < kTileDepth; ++depth) add_term(sums, a + depth * kPitchA, b + depth * kPitchB);
  } else {
#pragma unroll 1
    for (int depth = 0; depth < terms; ++depth) add_term(sums, a + depth * kPitchA, b + depth * kPitchB);
  }
}

/// Where a thread's first row and column of a tile are: of its warps two are side by side.
struct Corner {
  int row, column;
};
template <int kQuads>
INFERKIT_DEVICE Corner corner_of(int t) {
  const int warp = t / 32, lane = t % 32;
  return {warp / 2 * kRowsApart * kQuads + (lane % 2 + lane / 16 * 2) * 4,
          warp % 2 * kColumnsApart * kQuads + lane / 2 % 8 * 4};
}

/// The first chunk ends, or a later one. `totals` are this thread's: nobody else reads or writes them.
template <int kSums>
INFERKIT_DEVICE void end_chunk(float* part, float* totals, bool first) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    float* const total = totals + i * static_cast<int>(kTileThreads);
    *total = first ? part[i] : __fadd_rn(*total, part[i]);
    part[i] = 0;
  }
}
/// The last one ends: the sums are those of all chunks.
template <int kSums>
INFERKIT_DEVICE void end_chunks(float* part, const float* totals) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) part[i] = __fadd_rn(totals[i * static_cast<int>(kTileThreads)], part[i]);
}

/// Sums a tile over k terms, cut into steps. read(step, half) brings the terms of a step into registers, where `half`
/// is its number modulo 2; write(a, b) puts them into shared memory, [depth][row] and [depth][column]. Thread t makes
/// the rows and columns from corner_of(t). The threads have met when it returns.
template <int kQuads, class Read, class Write>
INFERKIT_DEVICE void sum_tile(Sums<kQuads>& sums, float* shared, int64_t k, int64_t chunk, const Read& read,
                              const Write& write) {
  constexpr int kPitch = kQuads * kTile + 4, kOperand = kTileDepth * kPitch, kSums = 16 * kQuads * kQuads;
  const int t = static_cast<int>(threadIdx.x);
  const Corner corner = corner_of<kQuads>(t);
  float* const totals = shared + t;
  float* const steps = shared + kTileTotals<kQuads * kTile>;
  Step step = first_step(k, chunk);
  read(step, 0);
  __syncthreads();  // the last tile has been used
  write(steps, steps + kOperand);
  __syncthreads();
  for (int half = 0; step.from < k; half ^= 1) {
    const Step then = step_after(step, k, chunk);
    const bool more = then.from < k;
    if (more) read(then, half ^ 1);
    const float* const as = steps + half * 2 * kOperand;
    add_terms<kQuads, kPitch, kPitch>(sums, as + corner.row, as + kOperand + corner.column, terms_of(step));
    if (more && ends_chunk(step)) end_chunk<kSums>(&sums.of[0][0], totals, step.end == chunk);
    float* const behind = steps + (half ^ 1) * 2 * kOperand;
    if (more) write(behind, behind + kOperand);
    __syncthreads();
    step = then;
  }
  if (k > chunk) end_chunks<kSums>(&sums.of[0][0], totals);
}

/// Calls use(row, column, sums), or sum where kTogether is 1, for each kTogether sums of the tile, neighbours of a row
/// in neighbouring threads. The threads have met since they last read `shared`.
template <int kTogether, int kQuads, class Use>
INFERKIT_DEVICE void use_sums(const Sums<kQuads>& sums, float* shared, const Use& use) {
  static_assert(kTogether == 1 || kTogether == 4);
  constexpr int kSide = kQuads * kTile;
  const int t = static_cast<int>(threadIdx.x);
  const Corner corner = corner_of<kQuads>(t);
  float* const kept = shared + kTileTotals<kQuads * kTile>;  // a group of rows of each thread
  const int line = corner.row / (kRowsApart * kQuads) * kRowsApart + corner.row % kRowsApart;
#pragma unroll
  for (int h = 0; h < kQuads; ++h) {
    if (h > 0) __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int q = 0; q < kQuads; ++q) {
        const float* const s = sums.of[4 * h + i] + 4 * q;
        store4(kept + (line + i) * kSide + q * kColumnsApart + corner.column, float4{s[0], s[1], s[2], s[3]});
      }
    }
    __syncthreads();
#pragma unroll 1
    for (int e = kTogether * t; e < kTile * kSide; e += kTogether * static_cast<int>(kTileThreads)) {
      const int of = e / kSide, row = of / kRowsApart * kRowsApart * kQuads + h * kRowsApart + of % kRowsApart;
      if constexpr (kTogether == 1) {
        use(row, e % kSide, kept[e]);
      } else {
        use(row, e % kSide, load4(kept + e));
      }
    }
  }
}

}  // namespace
}  // namespace inferkit::kernels::cuda
