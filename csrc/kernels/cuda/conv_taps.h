// How convolutions find the terms of a sum, and what follows it, whatever makes it.
#pragma once
#include "kernels/cuda/conv.h"
#include "kernels/cuda/functions.h"

namespace inferkit::kernels::cuda {
namespace {

/// A term of a sum: where its element lies from the window's first, and in which row, line and column.
struct alignas(16) Tap {
  int32_t offset, d0, d1, d2;
};

/// The output pixel that a thread works at: where its window begins, in the group's image and in the output.
struct Pixel {
  int64_t image, to;  // elements of x before the image, of y before the pixel in filter 0
  int32_t from;       // elements from the image on
  int32_t at[3];     // of the window's first element
  bool inside;
};

INFERKIT_DEVICE int32_t in_area(const ConvParams& p) { return p.axes[0].in * p.axes[1].in * p.axes[2].in; }
INFERKIT_DEVICE int32_t out_area(const ConvParams& p) { return p.axes[0].out * p.axes[1].out * p.axes[2].out; }
INFERKIT_DEVICE int32_t taps_of(const ConvParams& p) { return p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel; }

INFERKIT_DEVICE Pixel pixel_at(const ConvParams& p, int64_t number) {
  const int32_t area = out_area(p);
  Pixel out{};
  out.inside = number < p.batch * area;
  if (!out.inside) return out;
  const auto all = static_cast<int32_t>(number), image = all / area, place = all % area;
  const int32_t o[3] = {place / p.axes[2].out / p.axes[1].out, place / p.axes[2].out % p.axes[1].out,
                        place % p.axes[2].out};
  for (int d = 0; d < 3; ++d) out.at[d] = o[d] * p.axes[d].stride - p.axes[d].pad;
  out.image = int64_t{image} * p.groups * p.channels * in_area(p);
  out.from = (out.at[0] * p.axes[1].in + out.at[1]) * p.axes[2].in + out.at[2];
  out.to = int64_t{image} * p.groups * p.filters * area + place;
  return out;
}

INFERKIT_DEVICE Tap tap_at(const ConvParams& p, int32_t k) {
  const int32_t taps = taps_of(p), channel = k / taps, tap = k % taps;
  const int32_t i = tap / p.axes[2].kernel / p.axes[1].kernel, j = tap / p.axes[2].kernel % p.axes[1].kernel,
                l = tap % p.axes[2].kernel;
  Tap out{};
  out.d0 = i * p.axes[0].dilation;
  out.d1 = j * p.axes[1].dilation;
  out.d2 = l * p.axes[2].dilation;
  out.offset = channel * in_area(p) + (out.d0 * p.axes[1].in + out.d1) * p.axes[2].in + out.d2;
  return out;
}

INFERKIT_DEVICE bool within(int32_t at, int32_t size) {
  return static_cast<uint32_t>(at) < static_cast<uint32_t>(size);
}

/// Is what lies under a tap in the image?
INFERKIT_DEVICE bool is_inside(const ConvParams& p, const Pixel& pixel, const Tap& tap) {
  return pixel.inside &&
         (p.all_inside || (within(pixel.at[0] + tap.d0, p.axes[0].in) && within(pixel.at[1] + tap.d1, p.axes[1].in) &&
                           within(pixel.at[2] + tap.d2, p.axes[2].in)));
}

INFERKIT_DEVICE float with_bias(const ConvParams& p, float sum, int64_t filter) {
  if (p.bias) return __fadd_rn(sum, p.bias[filter]);
  return p.adds_zero ? __fadd_rn(sum, 0.0f) : sum;
}
INFERKIT_DEVICE float finished(const ConvParams& p, float sum, int64_t filter) {
  sum = with_bias(p, sum, filter);
  return p.act == Unary::kIdentity ? sum : apply_unary(p.act, sum, p.alpha, p.beta);
}

}  // namespace
}  // namespace inferkit::kernels::cuda
