// Convolutions over channels-first images of float with the bits of the CPU's: a sum runs over the channels of a group,
// then over the taps of the window, padding being zeros that are added, in the chunks of kernels/summation.h.
#pragma once
#include "kernels/cpu/vmath/vmath.h"
#include "kernels/cuda/nest.h"

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

/// conv_tiled: a block makes kConvTile filters at kConvTile pixels, of any images. gridDim: pixels, filters, groups.
inline constexpr int kConvTile = 64, kConvDepth = 16;
inline constexpr unsigned kConvThreads = 256;
inline constexpr size_t kConvShared =
    2 * kConvDepth * (kConvTile + 4) * sizeof(float) + 2 * kConvDepth * 4 * sizeof(int32_t);

/// conv_split: for little work. A block makes kSplitFilters filters at 32 pixels; its warps sum chunks side by side, as
/// many at a time as there are warps. gridDim: pixels, filters, groups.
inline constexpr int kSplitFilters = 8, kSplitPixels = 32;
inline constexpr size_t kConvSplitShared = kSplitFilters * kSplitFilters * kSplitPixels * sizeof(float);

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
