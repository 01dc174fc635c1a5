// Transposing a small matrix whose rows lie apart; whoever walks a large one cuts it into tiles that stay in L1.
#pragma once
#include <algorithm>
#include <cstdint>

namespace inferkit {

constexpr int64_t kTransposeTile = 32;

/// out[r * out_stride + c] = in[c * in_stride + r].
template <class W>
void transpose_tile(const W* in, int64_t in_stride, W* out, int64_t out_stride, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) out[r * out_stride + c] = in[c * in_stride + r];
  }
}

#if defined(__SSE2__) || defined(__aarch64__)
// Four by four at once; the rest of the tile goes one by one.
template <class W>
void transpose_fours(const W* in, int64_t in_stride, W* out, int64_t out_stride, int64_t rows, int64_t columns) {
  typedef W Vector __attribute__((vector_size(16), aligned(4), may_alias));
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    int64_t c = 0;
    for (; c + 4 <= columns; c += 4) {
      const W* from = in + c * in_stride + r;
      W* to = out + r * out_stride + c;
      const Vector v0 = *reinterpret_cast<const Vector*>(from);
      const Vector v1 = *reinterpret_cast<const Vector*>(from + in_stride);
      const Vector v2 = *reinterpret_cast<const Vector*>(from + 2 * in_stride);
      const Vector v3 = *reinterpret_cast<const Vector*>(from + 3 * in_stride);
      const Vector low01 = __builtin_shufflevector(v0, v1, 0, 4, 1, 5),
                   high01 = __builtin_shufflevector(v0, v1, 2, 6, 3, 7);
      const Vector low23 = __builtin_shufflevector(v2, v3, 0, 4, 1, 5),
                   high23 = __builtin_shufflevector(v2, v3, 2, 6, 3, 7);
      *reinterpret_cast<Vector*>(to) = __builtin_shufflevector(low01, low23, 0, 1, 4, 5);
      *reinterpret_cast<Vector*>(to + out_stride) = __builtin_shufflevector(low01, low23, 2, 3, 6, 7);
      *reinterpret_cast<Vector*>(to + 2 * out_stride) = __builtin_shufflevector(high01, high23, 0, 1, 4, 5);
      *reinterpret_cast<Vector*>(to + 3 * out_stride) = __builtin_shufflevector(high01, high23, 2, 3, 6, 7);
    }
    for (; c < columns; ++c) {
      for (int64_t i = r; i < r + 4; ++i) out[i * out_stride + c] = in[c * in_stride + i];
    }
  }
  for (; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) out[r * out_stride + c] = in[c * in_stride + r];
  }
}

inline void transpose_tile(const uint32_t* in, int64_t in_stride, uint32_t* out, int64_t out_stride, int64_t rows,
                           int64_t columns) {
  transpose_fours(in, in_stride, out, out_stride, rows, columns);
}
inline void transpose_tile(const float* in, int64_t in_stride, float* out, int64_t out_stride, int64_t rows,
                           int64_t columns) {
  transpose_fours(in, in_stride, out, out_stride, rows, columns);
}
#endif

/// The same of any size, tile by tile.
template <class W>
void transpose(const W* in, int64_t in_stride, W* out, int64_t out_stride, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r += kTransposeTile) {
    for (int64_t c = 0; c < columns; c += kTransposeTile) {
      transpose_tile(in + c * in_stride + r, in_stride, out + r * out_stride + c, out_stride,
                     std::min(kTransposeTile, rows - r), std::min(kTransposeTile, columns - c));
    }
  }
}

}  // namespace inferkit
