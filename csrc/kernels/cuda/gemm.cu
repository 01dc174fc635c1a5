#include "kernels/cuda/functions.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

INFERKIT_DEVICE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/// The sum becomes an element of C: bias and activation as on the CPU, where ReLU alone is part of the tile.
INFERKIT_DEVICE float finished(const GemmParams& p, float sum, int64_t column) {
  if (p.bias) sum = __fadd_rn(sum, p.bias[column]);
  return p.act == Unary::kIdentity ? sum : apply_unary(p.act, sum, p.alpha, p.beta);
}

}  // namespace

// Thread t makes rows 4 (t / 16) ... + 3 and columns 4 (t % 16) ... + 3 of the tile. A chunk ends anywhere in a step of
// kTileDepth: what lies behind its end is not added, since even adding zero would change a -0.
INFERKIT_KERNEL(gemm_tiled, GemmParams, 256, 2) {
  INFERKIT_SHARED(float, shared);
  constexpr int kPitch = kTile + 4;
  float* const as = shared;                        // [depth][row]
  float* const bs = shared + kTileDepth * kPitch;  // [depth][column]
  const int t = static_cast<int>(threadIdx.x), tr = t / 16 * 4, tc = t % 16 * 4;
  for (int64_t z = blockIdx.z; z < p.batch.n; z += gridDim.z) {
    int64_t at[2];
    offsets_of(p.batch, z, at);
    for (int64_t row0 = static_cast<int64_t>(blockIdx.y) * kTile; row0 < p.m; row0 += int64_t{gridDim.y} * kTile) {
      const int64_t col0 = static_cast<int64_t>(blockIdx.x) * kTile;
      float sum[4][4] = {}, part[4][4] = {};
      bool holds = false;
      for (int64_t begin = 0; begin < p.k; begin += p.chunk) {
        const int64_t end = smaller(p.k, begin + p.chunk);
        for (int64_t k0 = begin; k0 < end; k0 += kTileDepth) {
          __syncthreads();
          for (int i = t; i < kTileDepth * kTile; i += static_cast<int>(kTiledThreads)) {
            const int depth = i % kTileDepth, r = i / kTileDepth;
            const bool inside = row0 + r < p.m && k0 + depth < end;
            as[depth * kPitch + r] = inside ? p.a[at[0] + (row0 + r) * p.a_row + k0 + depth] : 0.0f;
          }
          for (int i = t; i < kTileDepth * kTile; i += static_cast<int>(kTiledThreads)) {
            const int c = i % kTile, depth = i / kTile;
            const bool inside = col0 + c < p.n && k0 + depth < end;
            bs[depth * kPitch + c] = inside ? p.b[at[1] + (k0 + depth) * p.b_row + (col0 + c) * p.b_col] : 0.0f;
          }
          __syncthreads();
          const int depths = static_cast<int>(smaller(kTileDepth, end - k0));
#pragma unroll 4
          for (int depth = 0; depth < depths; ++depth) {
            const float4 a = load4(as + depth * kPitch + tr);
            const float4 b = load4(bs + depth * kPitch + tc);
            const float av[4] = {a.x, a.y, a.z, a.w}, bv[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
              for (int j = 0; j < 4; ++j) part[i][j] = __fmaf_rn(av[i], bv[j], part[i][j]);
            }
          }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            sum[i][j] = holds ? __fadd_rn(sum[i][j], part[i][j]) : part[i][j];
            part[i][j] = 0;
          }
        }
        holds = true;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const int64_t row = row0 + tr + i, column = col0 + tc + j;
          if (row < p.m && column < p.n) p.c[(z * p.m + row) * p.n + column] = finished(p, sum[i][j], column);
        }
      }
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
      if (warp == 0 && column < p.n) p.c[(z * p.m + row) * p.n + column] = finished(p, sum, column);
    }
  }
}

}  // namespace inferkit::kernels::cuda
