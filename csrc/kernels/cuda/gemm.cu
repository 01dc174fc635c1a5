#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_put.h"
#include "kernels/cuda/tile_sums.h"

namespace inferkit::kernels::cuda {
namespace {

/// Reads the next step of a tile of kRows x kColumns into registers, by kThreads threads of which this is number t, and
/// writes it from there into shared memory.
template <int kRows, int kColumns, int kThreads>
struct Operands {
  static constexpr int kPitchA = kRows + 4, kPitchB = kColumns + 4;
  static constexpr int kQuadsA = kRows * kTileDepth / 4 / kThreads, kQuadsB = kColumns * kTileDepth / 4 / kThreads;
  float4 a[kQuadsA], b[kQuadsB];
};

/// Each row of A, and each column of B whose columns are no neighbours, has four threads; else each row of B has a
/// thread for four columns.
template <int kRows, int kColumns, int kThreads>
INFERKIT_DEVICE void read_step(Operands<kRows, kColumns, kThreads>& next, const GemmParams& p, const int64_t (&at)[2],
                               int64_t row0, int64_t col0, const Step& step, int t) {
  const int terms = terms_of(step), across = t / 4, depth = t % 4 * 4;
  const float* a = p.a + at[0] + step.from + depth + (row0 + across) * p.a_row;
#pragma unroll
  for (int q = 0; q < next.kQuadsA; ++q, a += kThreads / 4 * p.a_row) {
    next.a[q] = read_quad(a, 1, row0 + across + q * (kThreads / 4) < p.m ? terms - depth : 0);
  }
  const float* b = p.b + at[1] + step.from * p.b_row + col0 * p.b_col;
  if (p.b_col == 1) {
    constexpr int kLines = kThreads / (kColumns / 4);  // that the threads read at a time
    const int line = t / (kColumns / 4), column = t % (kColumns / 4) * 4;
    const auto valid = static_cast<int>(smaller(p.n - col0 - column, 4));
    b += line * p.b_row + column;
#pragma unroll
    for (int q = 0; q < next.kQuadsB; ++q, b += kLines * p.b_row) {
      next.b[q] = read_quad(b, 1, line + q * kLines < terms ? valid : 0);
    }
  } else {
    b += depth * p.b_row + across * p.b_col;
#pragma unroll
    for (int q = 0; q < next.kQuadsB; ++q, b += kThreads / 4 * p.b_col) {
      next.b[q] = read_quad(b, p.b_row, col0 + across + q * (kThreads / 4) < p.n ? terms - depth : 0);
    }
  }
}
template <int kRows, int kColumns, int kThreads>
INFERKIT_DEVICE void write_step(const Operands<kRows, kColumns, kThreads>& next, const GemmParams& p, float* as,
                                float* bs, int t) {
#pragma unroll
  for (int q = 0; q < next.kQuadsA; ++q) {
    const int i = t + q * kThreads;
    write_across(as + i % 4 * 4 * next.kPitchA + i / 4, next.kPitchA, next.a[q]);
  }
#pragma unroll
  for (int q = 0; q < next.kQuadsB; ++q) {
    const int i = t + q * kThreads;
    if (p.b_col == 1) {
      write_along(bs + i / (kColumns / 4) * next.kPitchB + i % (kColumns / 4) * 4, next.b[q]);
    } else {
      write_across(bs + i % 4 * 4 * next.kPitchB + i / 4, next.kPitchB, next.b[q]);
    }
  }
}

template <int kQuads>
INFERKIT_DEVICE void make_tiles(const GemmParams& p, float* shared) {
  constexpr int kSide = kQuads * kTile;
  const int t = static_cast<int>(threadIdx.x);
  const int64_t col0 = static_cast<int64_t>(blockIdx.x) * kSide;
  for (int64_t z = blockIdx.z; z < p.batch.n; z += gridDim.z) {
    int64_t at[2];
    offsets_of(p.batch, z, at);
    for (int64_t row0 = static_cast<int64_t>(blockIdx.y) * kSide; row0 < p.m; row0 += int64_t{gridDim.y} * kSide) {
      Sums<kQuads> sums{};
      Operands<kSide, kSide, static_cast<int>(kTileThreads)> next;
      sum_tile(
          sums, shared, p.k, p.chunk, [&](const Step& step, int) { read_step(next, p, at, row0, col0, step, t); },
          [&](float* as, float* bs) { write_step(next, p, as, bs, t); });
      if (goes_in_quads(p)) {
        use_sums<4>(sums, shared,
                    [&](int row, int column, const float4& four) { put_quad(p, z, row0 + row, col0 + column, four); });
      } else {
        use_sums<1>(sums, shared,
                    [&](int row, int column, float sum) { put_element(p, z, row0 + row, col0 + column, sum); });
      }
    }
  }
}

}  // namespace

INFERKIT_KERNEL(gemm_tiled, GemmParams, 256, 3) {
  INFERKIT_SHARED(float, shared);
  make_tiles<1>(p, shared);
}
INFERKIT_KERNEL(gemm_wide, GemmParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  make_tiles<2>(p, shared);
}

namespace {

/// The next terms of a strip: of A each lane has one of every row, of B those of its column.
template <int kRows>
struct StripTerms {
  float a[kRows], b[kStripDepth];
};
template <int kRows>
INFERKIT_DEVICE void read_terms(StripTerms<kRows>& next, const GemmParams& p, const float* a, const float* b, int rows,
                                const Step& step, int lane) {
  const int terms = terms_of<kStripDepth>(step);
#pragma unroll
  for (int r = 0; r < kRows; ++r) next.a[r] = r < rows && lane < terms ? a[r * p.a_row + step.from + lane] : 0.0f;
  if (b == nullptr) return;
  b += step.from * p.b_row;
  if (p.b_row == 1) {  // a column's terms are neighbours
#pragma unroll
    for (int depth = 0; depth < kStripDepth; depth += 4) {
      const float4 v = read_quad(b + depth, 1, terms - depth);
      next.b[depth] = v.x;
      next.b[depth + 1] = v.y;
      next.b[depth + 2] = v.z;
      next.b[depth + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int depth = 0; depth < kStripDepth; ++depth) next.b[depth] = depth < terms ? b[depth * p.b_row] : 0.0f;
  }
}

/// A strip of kRows rows and kStripColumns columns: each warp sums a chunk, a lane the sums of its column, and as many
/// rounds as it takes. B goes from global memory into registers, many terms at a time; A comes through shared memory.
template <int kRows>
INFERKIT_DEVICE void make_strips(const GemmParams& p, float* shared) {
  constexpr int kFloats = kRows * kStripDepth;  // of a warp: its terms of A, or its sums
  static_assert(kStripDepth == kStripColumns && kStripColumns == 32);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int warps = static_cast<int>(blockDim.x) / 32;
  float *const mine = shared + warp * kFloats, *const totals = shared + warps * kFloats;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kStripColumns + lane;
  const int64_t chunks = (p.k + p.chunk - 1) / p.chunk;
  const auto for_mine = [&](const auto& use) {
    for (int e = static_cast<int>(threadIdx.x); e < kFloats; e += static_cast<int>(blockDim.x)) use(e);
  };
  for (int64_t z = blockIdx.z; z < p.batch.n; z += gridDim.z) {
    int64_t at[2];
    offsets_of(p.batch, z, at);
    const float* const b = column < p.n ? p.b + at[1] + column * p.b_col : nullptr;
    for (int64_t row0 = static_cast<int64_t>(blockIdx.y) * kRows; row0 < p.m; row0 += int64_t{gridDim.y} * kRows) {
      const float* const a = p.a + at[0] + row0 * p.a_row;
      const auto rows = static_cast<int>(smaller(p.m - row0, kRows));
      for_mine([&](int e) { totals[e] = 0; });
      for (int64_t first = 0; first < chunks; first += warps) {
        float sums[kRows] = {};
        if (first + warp < chunks) {
          const int64_t begin = (first + warp) * p.chunk;
          Step step{begin, smaller(p.k, begin + p.chunk)};
          StripTerms<kRows> next;
          read_terms(next, p, a, b, rows, step, lane);
          while (step.from < step.end) {
#pragma unroll
            for (int r = 0; r < kRows; ++r) mine[r * kStripDepth + lane] = next.a[r];
            __syncwarp();
            float w[kStripDepth];
#pragma unroll
            for (int depth = 0; depth < kStripDepth; ++depth) w[depth] = next.b[depth];
            const int terms = terms_of<kStripDepth>(step);
            step.from += kStripDepth;
            if (step.from < step.end) read_terms(next, p, a, b, rows, step, lane);
#pragma unroll
            for (int depth = 0; depth < kStripDepth; depth += 4) {
#pragma unroll
              for (int r = 0; r < kRows; ++r) {
                const float4 v = load4(mine + r * kStripDepth + depth);
                if (depth < terms) sums[r] = __fmaf_rn(v.x, w[depth], sums[r]);
                if (depth + 1 < terms) sums[r] = __fmaf_rn(v.y, w[depth + 1], sums[r]);
                if (depth + 2 < terms) sums[r] = __fmaf_rn(v.z, w[depth + 2], sums[r]);
                if (depth + 3 < terms) sums[r] = __fmaf_rn(v.w, w[depth + 3], sums[r]);
              }
            }
            __syncwarp();
          }
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) mine[r * kStripColumns + lane] = sums[r];
        __syncthreads();
        const int count = static_cast<int>(smaller(warps, chunks - first));
        for_mine([&](int e) {
          float total = totals[e];
          for (int w = 0; w < count; ++w) {
            const float part = shared[w * kFloats + e];
            total = first + w == 0 ? part : __fadd_rn(total, part);
          }
          totals[e] = total;
        });
        __syncthreads();
      }
      for_mine(
          [&](int e) { put_element(p, z, row0 + e / kStripColumns, column - lane + e % kStripColumns, totals[e]); });
    }
  }
}

}  // namespace

INFERKIT_KERNEL(gemm_strips_1, GemmParams, 256, 1) {
  INFERKIT_SHARED(float, shared);
  make_strips<1>(p, shared);
}
INFERKIT_KERNEL(gemm_strips_4, GemmParams, 256, 1) {
  INFERKIT_SHARED(float, shared);
  make_strips<4>(p, shared);
}
INFERKIT_KERNEL(gemm_strips_8, GemmParams, 256, 1) {
  INFERKIT_SHARED(float, shared);
  make_strips<8>(p, shared);
}
INFERKIT_KERNEL(gemm_strips_16, GemmParams, 256, 1) {
  INFERKIT_SHARED(float, shared);
  make_strips<16>(p, shared);
}

}  // namespace inferkit::kernels::cuda
