// What a block does with a tile whose products tensor cores make: tile_sums.h, with pairs of halves for floats. A warp
// makes 16 kDown rows by 8 kAcross columns.
#pragma once
#include "kernels/cuda/mma.h"
#include "kernels/cuda/tile_sums.h"

namespace inferkit::kernels::cuda {
namespace {

/// As fragments lie: elements 0 and 1 are columns 2 t and 2 t + 1 of row g, 2 and 3 those of row g + 8.
template <int kDown, int kAcross>
struct Fragment {
  float of[kDown][kAcross][4];
};

/// Adds the terms of a step, 16 at a time. What lies behind the end of a chunk, or of K, must be zeros up to the next
/// multiple of 16.
template <Rounded kTo, int kPitchB, int kDown, int kAcross>
INFERKIT_DEVICE void add_pairs(Fragment<kDown, kAcross>& sums, const uint32_t* as, const uint32_t* bs, int terms) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll 1  // two rounds; side by side they would want registers that two blocks do not leave
  for (int pair = 0; pair < kHalfPairs; pair += 8) {
    if (2 * pair < terms) {
      uint32_t a[kDown][4], b[kAcross][2];
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
        const uint32_t* const from = as + (16 * i + g) * kHalfPitchA + pair + t;
        a[i][0] = from[0];
        a[i][1] = from[8 * kHalfPitchA];
        a[i][2] = from[4];
        a[i][3] = from[8 * kHalfPitchA + 4];
      }
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        const uint32_t* const from = bs + (pair + t) * kPitchB + 8 * j + g;
        b[j][0] = from[0];
        b[j][1] = from[4 * kPitchB];
      }
#pragma unroll
      for (int i = 0; i < kDown; ++i) {
#pragma unroll
        for (int j = 0; j < kAcross; ++j) multiply_add<kTo>(sums.of[i][j], a[i], b[j]);
      }
    }
  }
}

/// Leaves the sums of 16 rows at `to`, of which they are rows and columns from 0 on.
template <int kAcross>
INFERKIT_DEVICE void leave_rows(const float (&sums)[kAcross][4], float* to, int pitch) {
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int j = 0; j < kAcross; ++j) {
    float* const at = to + g * pitch + 8 * j + 2 * t;
    at[0] = sums[j][0];
    at[1] = sums[j][1];
    at[8 * pitch] = sums[j][2];
    at[8 * pitch + 1] = sums[j][3];
  }
}

/// Of kSide x kSide sums, which kTileThreads threads make, warp w makes the half of the rows w / 4 and the quarter of
/// the columns w % 4.
template <int kSide>
using TileFragment = Fragment<kSide / 32, kSide / 32>;

/// As sum_tile(): write(a, b) puts a step's pairs into shared memory, [row][pair] and [pair][column].
template <Rounded kTo, int kSide, class Read, class Write>
INFERKIT_DEVICE void sum_half_tile(TileFragment<kSide>& sums, uint32_t* shared, int64_t k, int64_t chunk,
                                   const Read& read, const Write& write) {
  constexpr int kPitch = kHalfPitchB<kSide>, kA = kSide * kHalfPitchA, kStep = kHalfStepWords<kSide, kSide>;
  constexpr int kSums = sizeof(sums) / sizeof(float);
  const int warp = static_cast<int>(threadIdx.x) / 32;
  float* const totals = reinterpret_cast<float*>(shared) + threadIdx.x;
  uint32_t* const steps = shared + kTileTotals<kSide>;
  const int row = warp / 4 * (kSide / 2), column = warp % 4 * (kSide / 4);
  Step step = first_step(k, chunk);
  read(step, 0);
  __syncthreads();  // the last tile has been used
  write(steps, steps + kA);
  __syncthreads();
  for (int half = 0; step.from < k; half ^= 1) {
    const Step then = step_after<kHalfDepth>(step, k, chunk);
    const bool more = then.from < k;
    if (more) read(then, half ^ 1);
    const uint32_t* const as = steps + half * kStep;
    add_pairs<kTo, kPitch>(sums, as + row * kHalfPitchA, as + kA + column, terms_of<kHalfDepth>(step));
    if (more && ends_chunk<kHalfDepth>(step)) end_chunk<kSums>(&sums.of[0][0][0], totals, step.end == chunk);
    uint32_t* const behind = steps + (half ^ 1) * kStep;
    if (more) write(behind, behind + kA);
    __syncthreads();
    step = then;
  }
  if (k > chunk) end_chunks<kSums>(&sums.of[0][0][0], totals);
}

/// As use_sums().
template <int kTogether, int kSide, class Use>
INFERKIT_DEVICE void use_fragments(const TileFragment<kSide>& sums, uint32_t* shared, const Use& use) {
  static_assert(kTogether == 1 || kTogether == 4);
  constexpr int kPitch = kSide + 8;
  static_assert(32 * kPitch <= 2 * kHalfStepWords<kSide, kSide>);
  float* const rows = reinterpret_cast<float*>(shared) + kTileTotals<kSide>;  // 16 of each half of the tile
  const int t = static_cast<int>(threadIdx.x), warp = t / 32;
#pragma unroll
  for (int i = 0; i < kSide / 32; ++i) {
    if (i > 0) __syncthreads();
    leave_rows(sums.of[i], rows + warp / 4 * 16 * kPitch + warp % 4 * (kSide / 4), kPitch);
    __syncthreads();
#pragma unroll 1
    for (int e = kTogether * t; e < 32 * kSide; e += kTogether * static_cast<int>(kTileThreads)) {
      const int of = e / kSide, row = of / 16 * (kSide / 2) + 16 * i + of % 16, column = e % kSide;
      if constexpr (kTogether == 1) {
        use(row, column, rows[of * kPitch + column]);
      } else {
        use(row, column, load4(rows + of * kPitch + column));
      }
    }
  }
}

/// Calls use(e) for the elements e of a slice that this thread works at, which are always the same.
template <class Use>
INFERKIT_DEVICE void for_each_of_slice(const Use& use) {
  for (int e = static_cast<int>(threadIdx.x); e < kSliceRows * kSliceColumns; e += static_cast<int>(blockDim.x)) use(e);
}

/// Adds to the totals of a slice what `count` warps have left of the chunks from number `first` on, each kFloats behind
/// the last, in their order.
template <int kFloats>
INFERKIT_DEVICE void add_parts(float* totals, const float* parts, int64_t first, int count) {
  for_each_of_slice([&](int e) {
    float total = totals[e];
    for (int w = 0; w < count; ++w) {
      const float next = parts[w * kFloats + e];
      total = first + w == 0 ? next : __fadd_rn(total, next);
    }
    totals[e] = total;
  });
}

/// Sums a slice over k terms: each warp a chunk, and as many rounds as it takes. read(step) and write(a, b) are as for
/// a tile, by the lanes of one warp. The warps' memory is kWords apart. Returns where the sums are, of which each
/// thread may read those that it works at.
template <Rounded kTo, int kWords, class Read, class Write>
INFERKIT_DEVICE const float* sum_half_slice(uint32_t* shared, int64_t k, int64_t chunk, const Read& read,
                                            const Write& write) {
  constexpr int kPitch = kHalfPitchB<kSliceColumns>;
  const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  uint32_t* const as = shared + warp * kWords;
  uint32_t* const bs = as + kSliceRows * kHalfPitchA;
  const float* const parts = reinterpret_cast<const float*>(shared);
  float* const totals = reinterpret_cast<float*>(shared + warps * kWords);
  const int64_t chunks = (k + chunk - 1) / chunk;
  for_each_of_slice([&](int e) { totals[e] = 0; });
  for (int64_t first = 0; first < chunks; first += warps) {
    Fragment<1, kSliceColumns / 8> part{};
    if (first + warp < chunks) {
      const int64_t begin = (first + warp) * chunk;
      Step step{begin, smaller(k, begin + chunk)};
      read(step);
      while (step.from < step.end) {
        write(as, bs);
        __syncwarp();
        const Step then{step.from + kHalfDepth, step.end};
        if (then.from < then.end) read(then);
        add_pairs<kTo, kPitch>(part, as, bs, terms_of<kHalfDepth>(step));
        __syncwarp();
        step = then;
      }
    }
    leave_rows(part.of[0], reinterpret_cast<float*>(as), kSliceColumns);
    __syncthreads();
    add_parts<kWords>(totals, parts, first, static_cast<int>(smaller(warps, chunks - first)));
    __syncthreads();
  }
  return totals;
}

}  // namespace
}  // namespace inferkit::kernels::cuda
