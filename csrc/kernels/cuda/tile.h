// How products and convolutions are cut, for kernels and for those who launch them. A block makes a tile of sums; the
// terms of both operands come through shared memory, as many at a time as a step has.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit::kernels::cuda {

/// Shared memory that a block may have on every chip from compute capability 8.0 on; 8.6 and 8.9 have the least (CUDA
/// C++ Programming Guide, technical specifications).
inline constexpr size_t kMostShared = size_t{99} << 10;

/// Terms of each sum in a step.
inline constexpr int kTileDepth = 16;
inline constexpr unsigned kTileThreads = 256;
/// A tile has kTile rows and columns, of which a thread makes 4 x 4, or kWideTile of each, of which a thread makes
/// 8 x 8: these read half as much for each sum, and want more sums than small devices have tiles for.
inline constexpr int kTile = 64, kWideTile = 128;
/// Floats in front of a tile's steps, for the sums of its complete chunks: registers have room for those of the one
/// that grows, if another block is to have some.
template <int kSide>
inline constexpr int kTileTotals = kSide * kSide;
/// Besides, two steps, of which one is written while the other is added.
constexpr size_t tile_shared(int side) {
  return static_cast<size_t>(side * side + 4 * kTileDepth * (side + 4)) * sizeof(float);
}
static_assert(tile_shared(kWideTile) <= kMostShared);

/// For little work of halves: each warp of a block sums a chunk of a tile of kSliceRows x kSliceColumns, side by side
/// with the other warps, of which there are at most kMostSlices; then they are added in order.
inline constexpr int kSliceRows = 16, kSliceColumns = 32, kMostSlices = 8;

/// The same where tensor cores multiply halves (mma.h), two of which are a word: of A each row has the pairs of a step
/// side by side, of B each pair has its columns. With these pitches the lanes of a warp read from different banks, but
/// for one row in eight of A: two more words a row would not leave room for two steps beside the totals.
inline constexpr int kHalfDepth = 32, kHalfPairs = kHalfDepth / 2, kHalfPitchA = kHalfPairs + 2;
template <int kColumns>
inline constexpr int kHalfPitchB = kColumns + 8;
template <int kRows, int kColumns>
inline constexpr int kHalfStepWords = kRows * kHalfPitchA + kHalfPairs * kHalfPitchB<kColumns>;
template <int kSide>
inline constexpr size_t kHalfTileShared =
    (static_cast<size_t>(kTileTotals<kSide>) + size_t{2} * kHalfStepWords<kSide, kSide>)*sizeof(uint32_t);
static_assert(kHalfTileShared<kWideTile> <= kMostShared);
inline constexpr int kHalfSliceWords = kHalfStepWords<kSliceRows, kSliceColumns>;  // of one warp, or its sums
static_assert(kHalfSliceWords >= kSliceRows * kSliceColumns);
constexpr size_t half_slice_shared(int slices) {
  return static_cast<size_t>(slices * kHalfSliceWords + kSliceRows * kSliceColumns) * sizeof(uint32_t);
}
/// Their chunks are whole products of fragments, which take 16 terms: those of kernels/summation.h, rounded up.
constexpr int64_t half_chunk(int64_t chunk) { return (chunk + 15) / 16 * 16; }

}  // namespace inferkit::kernels::cuda
