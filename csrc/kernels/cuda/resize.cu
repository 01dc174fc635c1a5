#include "kernels/cuda/platform.h"
#include "kernels/cuda/resize.h"

namespace inferkit::kernels::cuda {

INFERKIT_KERNEL(resize_pass, ResizeParams, 256, 4) {
  const int64_t n = p.outer * p.out * p.inner;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t row = i / p.inner, outer = row / p.out, first = (row - outer * p.out) * p.taps;
    if (p.index[first] < 0) {
      p.y[i] = p.outside;
      continue;
    }
    const float* const x = p.x + outer * p.in * p.inner + (i - row * p.inner);
    float sum = 0, part = 0;
    for (int64_t begin = 0; begin < p.taps; begin += p.chunk) {
      const int64_t end = p.taps - begin < p.chunk ? p.taps : begin + p.chunk;
      part = 0;
      for (int64_t t = begin; t < end; ++t) {
        part = __fadd_rn(part, __fmul_rn(p.weights[first + t], x[p.index[first + t] * p.inner]));
      }
      sum = begin == 0 ? part : __fadd_rn(sum, part);
    }
    p.y[i] = sum;
  }
}

}  // namespace inferkit::kernels::cuda
