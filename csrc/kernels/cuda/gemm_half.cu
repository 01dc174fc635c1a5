#include "kernels/cuda/gemm_half.h"
#include "kernels/cuda/gemm_put.h"
#include "kernels/cuda/half_sums.h"

namespace inferkit::kernels::cuda {
namespace {

/// A step of a tile of kRows x kColumns in registers, as it was read by kThreads threads.
template <int kRows, int kColumns, int kThreads>
struct HalfOperands {
  static constexpr int kQuadsA = kRows * kHalfDepth / 4 / kThreads;
  static constexpr int kQuadsB = kHalfPairs * (kColumns / 4) / kThreads;
  float4 a[kQuadsA];
  uint4 b[kQuadsB];  // pairs of four columns
};

/// Each row of A has eight threads; each pair of terms of B a thread for four columns.
template <Rounded kTo, int kRows, int kColumns, int kThreads>
INFERKIT_DEVICE void read_step(HalfOperands<kRows, kColumns, kThreads>& next, const HalfGemmParams& h,
                               const int64_t (&at)[2], int64_t row0, int64_t col0, const Step& step, int t) {
  const GemmParams& p = h.of;
  const int terms = terms_of<kHalfDepth>(step), across = t / 8, depth = t % 8 * 4;
  const float* a = p.a + at[0] + step.from + depth + (row0 + across) * p.a_row;
#pragma unroll
  for (int q = 0; q < next.kQuadsA; ++q, a += kThreads / 8 * p.a_row) {
    next.a[q] = read_quad(a, 1, row0 + across + q * (kThreads / 8) < p.m ? terms - depth : 0);
  }
  const int column = t % (kColumns / 4) * 4;
  constexpr int kLines = kThreads / (kColumns / 4);  // pairs that the threads read at a time
  int term = t / (kColumns / 4) * 2;
  if (h.pairs) {
    const uint32_t* b = h.pairs + at[1] + (step.from + term) / 2 * h.pairs_row + col0 + column;
#pragma unroll
    for (int q = 0; q < next.kQuadsB; ++q, term += 2 * kLines, b += kLines * h.pairs_row) {
      const bool there = term < terms && col0 + column < h.pairs_row;
      next.b[q] = there ? load_words(b) : uint4{0, 0, 0, 0};
    }
  } else {
    const auto valid = static_cast<int>(smaller(p.n - col0 - column, 4));
    const float* b = p.b + at[1] + (step.from + term) * p.b_row + (col0 + column) * p.b_col;
#pragma unroll
    for (int q = 0; q < next.kQuadsB; ++q, term += 2 * kLines, b += 2 * kLines * p.b_row) {
      const float4 u = read_quad(b, p.b_col, term < terms ? valid : 0);
      const float4 v = read_quad(b + p.b_row, p.b_col, term + 1 < terms ? valid : 0);
      next.b[q] = uint4{pair_of<kTo>(u.x, v.x), pair_of<kTo>(u.y, v.y), pair_of<kTo>(u.z, v.z), pair_of<kTo>(u.w, v.w)};
    }
  }
}

template <Rounded kTo, int kRows, int kColumns, int kThreads>
INFERKIT_DEVICE void write_step(const HalfOperands<kRows, kColumns, kThreads>& next, uint32_t* as, uint32_t* bs,
                                int t) {
#pragma unroll
  for (int q = 0; q < next.kQuadsA; ++q) {
    const float4& v = next.a[q];
    store_words(as + (t / 8 + q * (kThreads / 8)) * kHalfPitchA + t % 8 * 2,
                uint2{pair_of<kTo>(v.x, v.y), pair_of<kTo>(v.z, v.w)});
  }
  uint32_t* b = bs + t / (kColumns / 4) * kHalfPitchB<kColumns> + t % (kColumns / 4) * 4;
#pragma unroll
  for (int q = 0; q < next.kQuadsB; ++q, b += kThreads / (kColumns / 4) * kHalfPitchB<kColumns>) {
    store_words(b, next.b[q]);
  }
}

template <Rounded kTo, int kSide>
INFERKIT_DEVICE void make_tiles(const HalfGemmParams& h, uint32_t* shared) {
  const GemmParams& p = h.of;
  const int t = static_cast<int>(threadIdx.x);
  const int64_t col0 = static_cast<int64_t>(blockIdx.x) * kSide;
  for (int64_t z = blockIdx.z; z < p.batch.n; z += gridDim.z) {
    int64_t at[2];
    offsets_of(p.batch, z, at);
    for (int64_t row0 = static_cast<int64_t>(blockIdx.y) * kSide; row0 < p.m; row0 += int64_t{gridDim.y} * kSide) {
      TileFragment<kSide> sums{};
      HalfOperands<kSide, kSide, static_cast<int>(kTileThreads)> next;
      sum_half_tile<kTo, kSide>(
          sums, shared, p.k, p.chunk, [&](const Step& step, int) { read_step<kTo>(next, h, at, row0, col0, step, t); },
          [&](uint32_t* as, uint32_t* bs) { write_step<kTo>(next, as, bs, t); });
      if (goes_in_quads(p)) {
        use_fragments<4, kSide>(sums, shared, [&](int row, int column, const float4& four) {
          put_quad(p, z, row0 + row, col0 + column, four);
        });
      } else {
        use_fragments<1, kSide>(
            sums, shared, [&](int row, int column, float sum) { put_element(p, z, row0 + row, col0 + column, sum); });
      }
    }
  }
}

template <Rounded kTo>
INFERKIT_DEVICE void make_slices(const HalfGemmParams& h, uint32_t* shared) {
  const GemmParams& p = h.of;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t col0 = static_cast<int64_t>(blockIdx.x) * kSliceColumns;
  for (int64_t z = blockIdx.z; z < p.batch.n; z += gridDim.z) {
    int64_t at[2];
    offsets_of(p.batch, z, at);
    for (int64_t row0 = static_cast<int64_t>(blockIdx.y) * kSliceRows; row0 < p.m;
         row0 += int64_t{gridDim.y} * kSliceRows) {
      HalfOperands<kSliceRows, kSliceColumns, 32> next;
      const float* const sums = sum_half_slice<kTo, kHalfSliceWords>(
          shared, p.k, p.chunk, [&](const Step& step) { read_step<kTo>(next, h, at, row0, col0, step, lane); },
          [&](uint32_t* as, uint32_t* bs) { write_step<kTo>(next, as, bs, lane); });
      for_each_of_slice([&](int e) { put_element(p, z, row0 + e / kSliceColumns, col0 + e % kSliceColumns, sums[e]); });
    }
  }
}

}  // namespace

INFERKIT_KERNEL(gemm_bf16_wide, HalfGemmParams, 256, 2) {
  INFERKIT_SHARED(uint32_t, shared);
  make_tiles<Rounded::kBf16, kWideTile>(p, shared);
}
INFERKIT_KERNEL(gemm_bf16_tiled, HalfGemmParams, 256, 3) {
  INFERKIT_SHARED(uint32_t, shared);
  make_tiles<Rounded::kBf16, kTile>(p, shared);
}
INFERKIT_KERNEL(gemm_bf16_sliced, HalfGemmParams, 256, 2) {
  INFERKIT_SHARED(uint32_t, shared);
  make_slices<Rounded::kBf16>(p, shared);
}
INFERKIT_KERNEL(gemm_f16_wide, HalfGemmParams, 256, 2) {
  INFERKIT_SHARED(uint32_t, shared);
  make_tiles<Rounded::kF16, kWideTile>(p, shared);
}
INFERKIT_KERNEL(gemm_f16_tiled, HalfGemmParams, 256, 3) {
  INFERKIT_SHARED(uint32_t, shared);
  make_tiles<Rounded::kF16, kTile>(p, shared);
}
INFERKIT_KERNEL(gemm_f16_sliced, HalfGemmParams, 256, 2) {
  INFERKIT_SHARED(uint32_t, shared);
  make_slices<Rounded::kF16>(p, shared);
}

}  // namespace inferkit::kernels::cuda
