// The windows of convolutions and pooling, as kernels take them.
#pragma once
#include "engine/compile/window.h"
#include "kernels/cuda/conv.h"

namespace inferkit::cuda {

/// Kernels count in 32 bits.
inline bool small(int64_t n) { return n < int64_t{1} << 31; }

/// Do the places that the window visits, in the image and around it?
inline bool fits(const Window& w) {
  const auto place = [](const WindowDim& d) {
    return small(d.in + d.pad_begin + d.pad_end) && small(d.out) && small(d.stride) &&
           small((d.kernel - 1) * d.dilation + 1) && small(d.dilation) &&
           small(d.out * d.stride + (d.kernel - 1) * d.dilation);
  };
  return std::all_of(w.dim.begin(), w.dim.end(), place) && small(w.in_elements()) && small(w.out_elements()) &&
         small(w.kernel_elements());
}

inline kernels::cuda::WindowAxis axis_of(const WindowDim& d) {
  const auto narrow = [](int64_t v) { return static_cast<int32_t>(v); };
  return {narrow(d.in), narrow(d.out), narrow(d.kernel), narrow(d.stride), narrow(d.dilation), narrow(d.pad_begin)};
}

}  // namespace inferkit::cuda
