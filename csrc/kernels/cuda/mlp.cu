#include "kernels/cuda/functions.h"
#include "kernels/cuda/mlp.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

/// Weights of one column or two neighbours, at an address that their bytes divide.
template <int kWide>
struct Neighbours {
  float of[kWide];
};
INFERKIT_DEVICE void read_neighbours(Neighbours<1>& to, const float* at) { to.of[0] = *at; }
INFERKIT_DEVICE void read_neighbours(Neighbours<2>& to, const float* at) {
  const float2 v = load2(at);
  to.of[0] = v.x;
  to.of[1] = v.y;
}
/// Those of kDepth terms.
template <int kWide, int kDepth>
struct MlpWeights {
  Neighbours<kWide> of[kDepth];
};

/// What a thread sums at a time: one chunk of a few columns, for all rows of the block.
struct MlpShare {
  int chunk, column, terms;
  const float* w;  // of its first term
};
template <int kWide>
INFERKIT_DEVICE int shares_of(const MlpLayer& l) {
  return l.chunks * (l.wide / kWide);
}
template <int kWide>
INFERKIT_DEVICE MlpShare share_of(const MlpLayer& l, int i) {
  const int groups = l.wide / kWide, chunk = i / groups, column = i % groups * kWide;
  const int from = chunk * l.chunk, left = l.k - from;
  return {chunk, column, left < l.chunk ? left : l.chunk, l.w + static_cast<int64_t>(from) * l.wide + column};
}

template <int kWide, int kDepth>
INFERKIT_DEVICE void read_terms(MlpWeights<kWide, kDepth>& to, const MlpShare& s, int from, int wide) {
  const float* const at = s.w + static_cast<int64_t>(from) * wide;
  if (from + kDepth <= s.terms) {
#pragma unroll
    for (int d = 0; d < kDepth; ++d) read_neighbours(to.of[d], at + d * wide);
  } else {
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      if (from + d < s.terms) read_neighbours(to.of[d], at + d * wide);
    }
  }
}

/// Adds the terms whose weights these are, `left` at most; x is where the first row has the first of them.
template <int kRows, int kWide, int kDepth>
INFERKIT_DEVICE void add_terms_of_rows(float (&sums)[kRows][kWide], const MlpWeights<kWide, kDepth>& w, const float* x,
                                       int pitch, int left) {
  if (left >= kDepth) {
#pragma unroll
    for (int d = 0; d < kDepth; d += 4) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float4 v = load4(x + r * pitch + d);
        const float of[] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
#pragma unroll
          for (int c = 0; c < kWide; ++c) sums[r][c] = __fmaf_rn(of[e], w.of[d + e].of[c], sums[r][c]);
        }
      }
    }
  } else {
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      if (d >= left) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kWide; ++c) sums[r][c] = __fmaf_rn(x[r * pitch + d], w.of[d].of[c], sums[r][c]);
      }
    }
  }
}

/// Where shared memory has term k of a row of x.
INFERKIT_DEVICE int place_of(const MlpLayer& l, int k) { return k / l.chunk * l.room + k % l.chunk; }

template <int kRows, int kWide, int kDepth>
INFERKIT_DEVICE void take_rows(const MlpParams& p, float* shared) {
  auto* const run = reinterpret_cast<uint32_t*>(shared);
  float *const x = shared + kMlpHead, *const parts = shared + p.parts;  // parts: [chunk][row][column]
  const int t = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  for (int64_t row0 = static_cast<int64_t>(blockIdx.x) * kRows; row0 < p.m; row0 += int64_t{gridDim.x} * kRows) {
    // A thread's first weights of a layer are under way before the layer's inputs are there.
    MlpWeights<kWide, kDepth> w;
    const auto begin = [&](const MlpLayer& l) {
      if (t < shares_of<kWide>(l)) read_terms(w, share_of<kWide>(l, t), 0, l.wide);
    };
    const MlpLayer& first = p.layers[0];
    begin(first);
    // x and the number may be in the host's memory, where each line is read by one warp.
    if (t == threads - 1 && p.words) run[0] = p.run[static_cast<int64_t>(blockIdx.x) * p.run_step];
    for (int e = t; e < kRows * first.k; e += threads) {
      const int r = e / first.k;
      x[r * first.chunks * first.room + place_of(first, e - r * first.k)] =
          row0 + r < p.m ? p.x[row0 * first.k + e] : 0.0f;
    }
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < p.count; ++i) {
      const MlpLayer &l = p.layers[i], &then = p.layers[i + 1 < p.count ? i + 1 : i];
      const bool last = i + 1 == p.count;
      const int shares = shares_of<kWide>(l);
#pragma unroll 1
      for (int at = t; at < shares; at += threads) {
        const MlpShare s = share_of<kWide>(l, at);
        if (at != t) read_terms(w, s, 0, l.wide);
        float sums[kRows][kWide] = {};
#pragma unroll 1
        for (int k = 0; k < s.terms; k += kDepth) {
          if (k > 0) read_terms(w, s, k, l.wide);
          add_terms_of_rows<kRows, kWide, kDepth>(sums, w, x + s.chunk * l.room + k, l.chunks * l.room, s.terms - k);
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int c = 0; c < kWide; ++c) parts[(s.chunk * kRows + r) * l.wide + s.column + c] = sums[r][c];
        }
      }
      if (!last) begin(then);
      __syncthreads();
#pragma unroll 1
      for (int e = t; e < kRows * l.n; e += threads) {
        const int r = e / l.n, column = e - r * l.n;
        float sum = parts[r * l.wide + column];
        for (int c = 1; c < l.chunks; ++c) sum = __fadd_rn(sum, parts[(c * kRows + r) * l.wide + column]);
        if (l.bias) sum = __fadd_rn(sum, l.bias[column]);
        const float value = l.act == Unary::kIdentity ? sum : apply_unary(l.act, sum, l.alpha, l.beta);
        if (!last) {
          x[r * then.chunks * then.room + place_of(then, column)] = value;
        } else if (row0 + r < p.m) {
          const int64_t to = row0 * l.n + e;
          if (p.words) {
            put_word(p.words + to, static_cast<uint32_t>(__float_as_int(value)), run[0]);
          } else {
            p.y[to] = value;
          }
        }
      }
      __syncthreads();
    }
  }
}

}  // namespace

// One row leaves nothing to do with a weight but one product, so that threads only read; with more rows a thread has
// two columns, which halves its reads of shared memory.
INFERKIT_KERNEL(mlp_rows_1, MlpParams, 1024, 1) {
  INFERKIT_SHARED(float, shared);
  take_rows<1, 1, 8>(p, shared);
}
INFERKIT_KERNEL(mlp_rows_4, MlpParams, 512, 1) {
  INFERKIT_SHARED(float, shared);
  take_rows<4, 2, 8>(p, shared);
}
INFERKIT_KERNEL(mlp_rows_8, MlpParams, 512, 1) {
  INFERKIT_SHARED(float, shared);
  take_rows<8, 2, 8>(p, shared);
}

}  // namespace inferkit::kernels::cuda
