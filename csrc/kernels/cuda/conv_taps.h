// How convolutions find the terms of a sum, and what follows it, whatever makes it.
#pragma once
#include "kernels/cuda/conv.h"
#include "kernels/cuda/functions.h"

namespace inferkit::kernels::cuda {
namespace {

/// A term of a sum: where its element lies from the window's first, and in which row, line and column of the window, as
/// a bit for each behind those of the axis before. The last bit is every tap's. Windows that reach far have the number
/// of the tap instead, those that reach nowhere the last bit alone.
struct alignas(8) Tap {
  int32_t offset;
  uint32_t lines;
};
inline constexpr uint32_t kEveryTap = uint32_t{1} << 31;

/// The output pixel that a thread works at: where its window begins, in the group's image and in the output.
struct Pixel {
  int64_t image, from, to;  // elements of x before the image, from there on, of y before the pixel in filter 0
  int32_t at[3];            // of the window's first element
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
  out.from = (int64_t{out.at[0]} * p.axes[1].in + out.at[1]) * p.axes[2].in + out.at[2];
  out.to = int64_t{image} * p.groups * p.filters * area + place;
  return out;
}

INFERKIT_DEVICE bool within(int32_t at, int32_t size) {
  return static_cast<uint32_t>(at) < static_cast<uint32_t>(size);
}

/// A place in the window.
struct Place {
  int32_t row, line, column;
};
INFERKIT_DEVICE Place place_of(const ConvParams& p, int32_t tap) {
  const int32_t all = tap / p.axes[2].kernel;
  return {all / p.axes[1].kernel, all % p.axes[1].kernel, tap % p.axes[2].kernel};
}

INFERKIT_DEVICE Tap tap_at(const ConvParams& p, int32_t k) {
  const int32_t taps = taps_of(p), channel = k / taps, tap = k % taps;
  const Place at = place_of(p, tap);
  const int32_t lines = at.row * p.axes[0].dilation * p.axes[1].in + at.line * p.axes[1].dilation;
  Tap out{channel * in_area(p) + lines * p.axes[2].in + at.column * p.axes[2].dilation, kEveryTap};
  if (p.reach == Reach::kNear) {
    out.lines |= uint32_t{1} << at.row | uint32_t{1} << (p.axes[0].kernel + at.line) |
                 uint32_t{1} << (p.axes[0].kernel + p.axes[1].kernel + at.column);
  } else if (p.reach == Reach::kFar) {
    out.lines = static_cast<uint32_t>(tap);
  }
  return out;
}

/// The lines of a pixel's window that are padding, as Tap has them: a tap is in the image where it has none of them.
/// Of no pixel, all.
INFERKIT_DEVICE uint32_t padding_of(const ConvParams& p, const Pixel& pixel) {
  if (!pixel.inside) return ~uint32_t{0};
  uint32_t out = 0;
  if (p.reach != Reach::kNear) return out;
  int bit = 0;
  for (int d = 0; d < 3; ++d) {
    for (int32_t i = 0; i < p.axes[d].kernel; ++i, ++bit) {
      if (!within(pixel.at[d] + i * p.axes[d].dilation, p.axes[d].in)) out |= uint32_t{1} << bit;
    }
  }
  return out;
}
/// Is a tap of a window that reaches far in the image?
INFERKIT_DEVICE bool is_inside(const ConvParams& p, const Pixel& pixel, const Tap& tap) {
  const Place at = place_of(p, static_cast<int32_t>(tap.lines));
  return pixel.inside && within(pixel.at[0] + at.row * p.axes[0].dilation, p.axes[0].in) &&
         within(pixel.at[1] + at.line * p.axes[1].dilation, p.axes[1].in) &&
         within(pixel.at[2] + at.column * p.axes[2].dilation, p.axes[2].in);
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
