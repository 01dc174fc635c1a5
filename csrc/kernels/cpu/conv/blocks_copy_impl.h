// Planes of an image that become pixels of sixteen channels, and back; part of conv_impl.h.
#pragma once
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose_inl.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

INFERKIT_INLINE F32x16 within(F32x16 v, const Bounds& b) {
  return b.bounded ? min(broadcast(b.high), max(broadcast(b.low), v)) : v;
}

/// planes[c * plane + i] and pixels[16 i + c], for c < 16 and i < count; channels past `channels` are zeros.
INFERKIT_INLINE void planes_to_pixels(const float* planes, int64_t plane, int64_t count, int64_t channels,
                                      float* pixels) {
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) transpose_4x4(planes + c * plane + i, plane, pixels + i * kLanes + c, kLanes);
    for (; i < count; ++i) {
      for (int64_t k = c; k < c + 4; ++k) pixels[i * kLanes + k] = planes[k * plane + i];
    }
  }
  for (; c < kLanes; ++c) {
    for (int64_t i = 0; i < count; ++i) pixels[i * kLanes + c] = c < channels ? planes[c * plane + i] : 0;
  }
}
INFERKIT_INLINE void pixels_to_planes(const float* pixels, int64_t count, int64_t channels, float* planes,
                                      int64_t plane) {
  int64_t c = 0;
  for (; c + 4 <= channels; c += 4) {
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) transpose_4x4(pixels + i * kLanes + c, kLanes, planes + c * plane + i, plane);
    for (; i < count; ++i) {
      for (int64_t k = c; k < c + 4; ++k) planes[k * plane + i] = pixels[i * kLanes + k];
    }
  }
  for (; c < channels; ++c) {
    for (int64_t i = 0; i < count; ++i) planes[c * plane + i] = pixels[i * kLanes + c];
  }
}

void blocks_to_planes(const BlocksToPlanesArgs& a) { pixels_to_planes(a.x, a.pixels, a.channels, a.y, a.plane); }

INFERKIT_INLINE void zero_pixels(float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) store(to + i * kLanes, broadcast(0));
}

/// Pixels column, column + stride... of a row of the image, which begins at `row`.
INFERKIT_INLINE void copy_pixels(const BlocksCopyArgs& a, int64_t row, int64_t column, int64_t count, float* to) {
  const int64_t area = a.h.in * a.w.in, stride = a.w.stride;
  if (a.pixels) {
    const float* from = a.x + (row + column) * kLanes;
    for (int64_t i = 0; i < count; ++i) store(to + i * kLanes, load(from + i * stride * kLanes));
  } else if (stride == 1) {
    planes_to_pixels(a.x + row + column, area, count, a.channels, to);
  } else {
    const float* from = a.x + row + column;
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < kLanes; ++c) to[i * kLanes + c] = c < a.channels ? from[c * area + i * stride] : 0;
    }
  }
}

void blocks_copy(const BlocksCopyArgs& a) {
  const int64_t stride = a.w.stride;
  for (int64_t u = 0; u < a.h_phases; ++u) {
    for (int64_t v = 0; v < a.w_phases; ++v) {
      // Of the columns of this phase, [low, high) lie in the image.
      const int64_t start = v - a.w.pad_begin;
      int64_t low = start < 0 ? (-start + stride - 1) / stride : 0;
      int64_t high = start < a.w.in ? (a.w.in - start + stride - 1) / stride : 0;
      if (high > a.width) high = a.width;
      if (low > high) low = high;
      float* to = a.to + ((u * a.w_phases + v) * a.plane + a.first * a.width) * kLanes;
      for (int64_t q = a.first; q < a.first + a.rows; ++q, to += a.width * kLanes) {
        const int64_t y = q * a.h.stride + u - a.h.pad_begin;
        if (y < 0 || y >= a.h.in) {
          zero_pixels(to, a.width);
          continue;
        }
        zero_pixels(to, low);
        copy_pixels(a, y * a.w.in, start + low * stride, high - low, to + low * kLanes);
        zero_pixels(to + high * kLanes, a.width - high);
      }
    }
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
