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
      ChunkedSums<kQuads> sums;
      Operands<kSide, kSide, static_cast<int>(kTileThreads)> next;
      sum_tile(
          sums, shared, p.k, p.chunk, [&](const Step& step, int) { read_step(next, p, at, row0, col0, step, t); },
          [&](float* as, float* bs) { write_step(next, p, as, bs, t); });
      use_sums(sums.whole, shared,
               [&](int row, int column, float sum) { put_element(p, z, row0 + row, col0 + column, sum); });
    }
  }
}

}  // namespace

INFERKIT_KERNEL(gemm_tiled, GemmParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  make_tiles<1>(p, shared);
}
INFERKIT_KERNEL(gemm_wide, GemmParams, 256, 1) {
  INFERKIT_SHARED(float, shared);
  make_tiles<2>(p, shared);
}

INFERKIT_KERNEL(gemm_sliced, GemmParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t col0 = static_cast<int64_t>(blockIdx.x) * kSliceColumns;
  for (int64_t z = blockIdx.z; z < p.batch.n; z += gridDim.z) {
    int64_t at[2];
    offsets_of(p.batch, z, at);
    for (int64_t row0 = static_cast<int64_t>(blockIdx.y) * kSliceRows; row0 < p.m;
         row0 += int64_t{gridDim.y} * kSliceRows) {
      Operands<kSliceRows, kSliceColumns, 32> next;
      const float* const sums = sum_slice<kSliceFloats>(
          shared, p.k, p.chunk, [&](const Step& step) { read_step(next, p, at, row0, col0, step, lane); },
          [&](float* as, float* bs) { write_step(next, p, as, bs, lane); });
      for_each_of_slice([&](int e) { put_element(p, z, row0 + e / kSliceColumns, col0 + e % kSliceColumns, sums[e]); });
    }
  }
}

INFERKIT_KERNEL(gemm_split, GemmParams, 256, 2) {
  INFERKIT_SHARED(float, parts);  // [warp][column]
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kSplitColumns + lane;
  const int64_t chunks = (p.k + p.chunk - 1) / p.chunk;
  for (int64_t z = blockIdx.z; z < p.batch.n; z += gridDim.z) {
    int64_t at[2];
    offsets_of(p.batch, z, at);
    for (int64_t row = blockIdx.y; row < p.m; row += gridDim.y) {
      const float* const a = p.a + at[0] + row * p.a_row;
      float sum = 0;
      for (int64_t first = 0; first < chunks; first += kSplitWarps) {
        const int64_t mine = first + warp, end = smaller(p.k, (mine + 1) * p.chunk);
        float part = 0;
        if (column < p.n) {
          const float* b = p.b + at[1] + column * p.b_col;
#pragma unroll 8
          for (int64_t k = mine * p.chunk; k < end; ++k) part = __fmaf_rn(a[k], b[k * p.b_row], part);
        }
        parts[warp * kSplitColumns + lane] = part;
        __syncthreads();
        if (warp == 0) {
          const int count = static_cast<int>(smaller(kSplitWarps, chunks - first));
          for (int w = 0; w < count; ++w) {
            const float next = parts[w * kSplitColumns + lane];
            sum = first + w == 0 ? next : __fadd_rn(sum, next);
          }
        }
        __syncthreads();
      }
      if (warp == 0 && column < p.n) put_element(p, z, row, column, sum);
    }
  }
}

}  // namespace inferkit::kernels::cuda
