// The one rule by which long sums are cut, for every tier (the baseline, which has no FMA, rounds each term as well),
// thread count, way of lowering and device (but for bf16 on the tiles of AMX, docs/decisions/074-tiles.md): chunks of K
// that the layer alone fixes, each summed from zero in ascending order, and their sums added from the first to the
// last. Machines with few rows may sum the chunks side by side, others in turn: the bits are the same. The error of a
// sum grows with the number of additions in a row, so it is that of a chunk plus that of adding the chunks. (Higham,
// The accuracy of floating point summation, SIAM J. Sci. Comput. 14, 1993, section 3: blocked summation.)
#pragma once
#include <stdint.h>

namespace inferkit::kernels {

/// The longest chunk. A tile of 12 x 32 spends some 50 cycles on handing its sums on, and 12 on each element of K.
inline constexpr int64_t kLongestChunk = 256;
/// And of doubles: a tile takes twice as long for as many elements of K, so that handing sums on costs the same share,
/// and the error is smaller.
inline constexpr int64_t kLongestChunk64 = 128;

// Functions of each file's own: of one that files share, the linker might keep the copy that was compiled for AVX-512.

/// The elements of K in a chunk; the last one may have fewer. For sums whose other extents are no constants of the
/// layer: the pixels of an image.
static constexpr int64_t sum_chunk(int64_t k) {
  if (k < 32) return k < 1 ? 1 : k;
  const int64_t chunk = k < 128 ? (k + 1) / 2 : (k + 3) / 4;
  return chunk < kLongestChunk ? chunk : kLongestChunk;
}

/// For products and sums of what a run computes. Such a K may be a length, which differs between requests that mean the
/// same (attention's keys, padded or not): up to here all chunks are of one size, so that zeros at the end of K add
/// chunks of zeros and change no bit.
inline constexpr int64_t kLongestEven = 1024, kEvenChunk = 32;
static constexpr int64_t computed_chunk(int64_t k) { return k <= kLongestEven ? kEvenChunk : kLongestChunk; }

/// For attention's sums over the values, however many keys a row sees: that differs from block to block. Of one sum of
/// 256 keys the error was larger than ONNX Runtime's.
inline constexpr int64_t kValueChunk = 64;

/// For a product with a B of n columns. Few columns leave FMA's latency exposed at one row, unless there are several
/// chunks to sum side by side.
static constexpr int64_t sum_chunk(int64_t k, int64_t n) {
  const int64_t chunk = k >= 32 && n <= 32 ? (k + 3) / 4 : sum_chunk(k);
  return chunk < kLongestChunk ? chunk : kLongestChunk;
}

}  // namespace inferkit::kernels
