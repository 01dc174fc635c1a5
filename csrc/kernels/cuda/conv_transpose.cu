#include "kernels/cuda/conv.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

/// The input along `d` that sends its tap k to output `o`, or -1.
INFERKIT_DEVICE int32_t sender(const WindowAxis& d, int32_t o, int32_t k) {
  const int32_t at = o + d.pad - k * d.dilation;
  if (at < 0 || at % d.stride != 0) return -1;
  const int32_t from = at / d.stride;
  return from < d.in ? from : -1;
}

/// The sum over the channels, which lie x_step and w_step apart.
INFERKIT_DEVICE float sent(const ConvTransposeParams& p, const float* x, int64_t x_step, const float* w,
                           int64_t w_step) {
  float sum = 0, part = 0;
  int32_t left = p.chunk;
  bool holds = false;
  for (int32_t c = 0; c < p.channels; ++c, x += x_step, w += w_step) {
    part = __fmaf_rn(*w, *x, part);
    if (--left > 0) continue;
    sum = holds ? __fadd_rn(sum, part) : part;
    holds = true;
    part = 0;
    left = p.chunk;
  }
  return left == p.chunk ? sum : holds ? __fadd_rn(sum, part) : part;
}

}  // namespace

INFERKIT_KERNEL(conv_transpose, ConvTransposeParams, 256, 3) {
  const WindowAxis &d0 = p.axes[0], &d1 = p.axes[1], &d2 = p.axes[2];
  const int32_t area = d0.out * d1.out * d2.out, in = d0.in * d1.in * d2.in;
  const int32_t taps = d0.kernel * d1.kernel * d2.kernel;
  const int64_t n = p.batch * p.groups * p.filters * area;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t plane = i / area, image = plane / p.filters, group = image % p.groups;
    const auto o = static_cast<int32_t>(i - plane * area);
    const int64_t filter = plane - image * p.filters;
    const int32_t o0 = o / d2.out / d1.out, o1 = o / d2.out % d1.out, o2 = o % d2.out;
    const float* const x = p.x + image * p.channels * in;
    const float* const w = p.w + (group * p.channels * p.filters + filter) * taps;
    float total = p.bias ? p.bias[group * p.filters + filter] : 0.0f, part = 0;
    int32_t tap = 0, left = p.tap_chunk;
    bool is_first = true;
    for (int32_t a = 0; a < d0.kernel; ++a) {
      const int32_t s0 = sender(d0, o0, a);
      for (int32_t b = 0; b < d1.kernel; ++b) {
        const int32_t s1 = s0 < 0 ? -1 : sender(d1, o1, b);
        for (int32_t c = 0; c < d2.kernel; ++c, ++tap) {
          const int32_t s2 = s1 < 0 ? -1 : sender(d2, o2, c);
          if (s2 >= 0) {
            const float value =
                sent(p, x + (int64_t{s0} * d1.in + s1) * d2.in + s2, in, w + tap, int64_t{p.filters} * taps);
            if (is_first) {
              total = __fadd_rn(total, value);
            } else {
              part = __fadd_rn(part, value);
            }
          }
          if (--left > 0 && tap + 1 < taps) continue;
          if (!is_first) total = __fadd_rn(total, part);
          is_first = false;
          part = 0;
          left = p.tap_chunk;
        }
      }
    }
    p.y[i] = total;
  }
}

}  // namespace inferkit::kernels::cuda
