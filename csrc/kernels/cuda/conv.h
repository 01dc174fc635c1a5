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
};

/// conv_tiled, conv_wide: a block makes kTile filters at kTile pixels, of any images, or kWideTile at kWideTile.
/// gridDim: pixels, filters, groups.
constexpr size_t conv_shared(int side) { return tile_shared(side) + size_t{2} * kTileDepth * 4 * sizeof(int32_t); }

/// conv_sliced: for little work. A block makes kSliceRows filters at kSliceColumns pixels, by as many warps as there
/// are chunks, kMostSlices at most, each with a table of taps. gridDim: pixels, filters, groups.
inline constexpr int kSliceTapFloats = kTileDepth * 4;
constexpr size_t conv_slice_shared(int slices) { return slice_shared(slices, kSliceTapFloats); }

/// conv_direct: for few filters a group, depthwise ones among them. A thread makes an element.

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
