// Convolutions over channels-first images of float with the bits of the CPU's: a sum runs over the channels of a group,
// then over the taps of the window, padding being zeros that are added, in the chunks of kernels/summation.h.
#pragma once
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/cuda/nest.h"
#include "kernels/cuda/tile.h"

namespace inferkit::kernels::cuda {

/// One dimension of an image, its output and the window.
struct WindowAxis {
  int32_t in, out, kernel, stride, dilation, pad;  // pad: before the image
};

/// Where windows reach: not into padding; into padding, by few enough lines, over all axes, for a word to have a bit
/// for each and one for all; by more.
enum class Reach : uint8_t { kInside, kNear, kFar };
constexpr Reach reach_of(const WindowAxis (&axes)[3], bool has_padding) {
  const int64_t lines = int64_t{axes[0].kernel} + axes[1].kernel + axes[2].kernel;
  return !has_padding ? Reach::kInside : lines < 32 ? Reach::kNear : Reach::kFar;
}

/// x [batch, groups, channels, in], w [groups, filters, channels, kernel], y [batch, groups, filters, out]. An image of
/// a group, all pixels of the batch and the elements of a window are less than 2^31 each.
struct ConvParams {
  const float *x, *w;
  float* y;
  const float* bias;   // groups * filters values, or null
  WindowAxis axes[3];  // missing ones come first and have size 1
  int64_t batch;
  int32_t groups, channels, filters;  // channels and filters of one group
  int32_t chunk;                      // of the channels * kernel terms of a sum
  float alpha, beta;                  // of act
  Unary act;
  bool adds_zero;  // where there is no bias: the CPU's depthwise kernel makes 0 of -0

  // What follows is for tiles.
  Reach reach;
  bool by_fours;  // a 1 x 1 window at every pixel, images of a multiple of four pixels, and x where 16 divides
  /// Of constant filters, w is [groups, channels * kernel, this], where it is `filters` rounded up to a multiple of 4.
  int32_t packed_filters;  // or 0
  /// Null, or as many y as a sum has chunks: a block makes one chunk of a tile, and conv_add puts them together.
  float* parts;
};

/// A tile: kRows filters at kColumns pixels, of any images, made by kThreads threads, each of which makes kQuads times
/// kQuads squares of 4 x 4. kStages steps of kDepth terms are in shared memory, as [depth][filter] and [depth][pixel].
template <int kQuads_, int kDepth_, int kStages_>
struct ConvCut {
  static constexpr int kQuads = kQuads_, kDepth = kDepth_, kStages = kStages_, kThreads = 128;
  static constexpr int kRows = 32 * kQuads, kColumns = 64 * kQuads, kPitch = kColumns;
  static constexpr int kFilterFloats = kDepth * kRows, kStepFloats = kFilterFloats + kDepth * kPitch;
  static_assert(kStages * kStepFloats >= kRows * kPitch);
};
inline constexpr int kMostTaps = 256;  // a chunk's at most
template <class Cut>
inline constexpr size_t kConvShared = (size_t{Cut::kStages} * Cut::kStepFloats + size_t{2} * kMostTaps * 2) * 4;

/// conv_tiled and conv_wide, whose threads read half as much for each sum. gridDim: tiles of filters, of pixels, groups
/// times parts.
using ConvTiled = ConvCut<1, 16, 4>;
using ConvWide = ConvCut<2, 16, 3>;

/// conv_add: a thread makes an element of y, of which there are less than 2^31, of its parts.

/// conv_direct: for few filters a group. A thread makes an element.

/// conv_depthwise: for one channel a group and a square window of 3 or 5 lines, by steps of 1 or 2, on flat images. All
/// terms are one chunk. A thread makes kColumnPixels pixels, one below the other.
inline constexpr int kColumnPixels = 4;
constexpr bool suits_depthwise(const ConvParams& p) {
  const WindowAxis &d = p.axes[0], &h = p.axes[1], &w = p.axes[2];
  const bool is_flat = d.in == 1 && d.out == 1 && d.kernel == 1 && d.pad == 0;
  const bool is_square = h.kernel == w.kernel && h.stride == w.stride && h.dilation == 1 && w.dilation == 1;
  return p.channels == 1 && is_flat && is_square && (h.kernel == 3 || h.kernel == 5) &&
         (h.stride == 1 || h.stride == 2);
}

/// x [batch, groups, channels, in], w [groups, channels, filters, kernel], y [batch, groups, filters, out]: a pixel is
/// the bias, to which what each tap sends is added, tap by tap in chunks of tap_chunk, the first of which goes on from
/// the bias. What a tap sends is a sum over the channels in chunks of `chunk`. `in` and `out` are this operator's;
/// `pad` is cut off the output. A thread makes an element.
struct ConvTransposeParams {
  const float *x, *w;
  float* y;
  const float* bias;  // groups * filters values, or null
  WindowAxis axes[3];
  int64_t batch;
  int32_t groups, channels, filters;
  int32_t chunk, tap_chunk;
};

}  // namespace inferkit::kernels::cuda
