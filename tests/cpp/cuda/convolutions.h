// Convolutions in tests of CUDA: what float32 and halves are cut by.
#pragma once
#include "kernels/cpu/conv/conv.h"
#include "kernels/cuda/conv.h"
#include "support.h"

namespace inferkit::testing {

inline kernels::ConvDim line_of(int64_t in, int64_t kernel, int64_t stride = 1, int64_t pad = 0, int64_t dilation = 1,
                                int64_t pad_end = -1) {
  const int64_t room = in + pad + (pad_end < 0 ? pad : pad_end) - (kernel - 1) * dilation - 1;
  return {in, room / stride + 1, kernel, stride, dilation, pad};
}

inline kernels::cuda::WindowAxis axis(const kernels::ConvDim& d) {
  const auto n = [](int64_t v) { return static_cast<int32_t>(v); };
  return {n(d.in), n(d.out), n(d.kernel), n(d.stride), n(d.dilation), n(d.pad_begin)};
}

/// All but the pointers, the bias and the chunk, from a struct of the tests with these sizes; as engine/cuda/conv.cc.
template <class Sizes>
void set_geometry(kernels::cuda::ConvParams& p, const Sizes& s) {
  const auto n = [](int64_t v) { return static_cast<int32_t>(v); };
  bool pads = false;
  p.by_fours = s.in() % 4 == 0 && s.in() == s.out();
  for (int i = 0; i < 3; ++i) {
    const kernels::ConvDim& d = s.dim[i];
    p.axes[i] = axis(d);
    pads = pads || d.pad_begin > 0 || (d.out - 1) * d.stride + (d.kernel - 1) * d.dilation >= d.in;
    p.by_fours = p.by_fours && d.kernel == 1 && d.stride == 1;
  }
  p.reach = kernels::cuda::reach_of(p.axes, pads);
  p.batch = s.batch;
  p.groups = n(s.groups);
  p.channels = n(s.channels);
  p.filters = n(s.filters);
  p.act = s.act;
  p.alpha = 0.25f;
  p.beta = 0.5f;
}

}  // namespace inferkit::testing
