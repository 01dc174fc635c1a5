// ConvTranspose, with the bits of engine/ops/conv_transpose.cc.
#include "engine/compile/conv_transpose_shape.h"
#include "engine/cuda/launch.h"
#include "engine/cuda/window.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

Cost conv_transpose_cost(const NodeContext& c) {
  const TransposeShape s = transpose_shape(c);
  const Window& w = s.window;
  // A pixel of the output looks back to where its taps come from.
  const auto looks = [](const WindowDim& d) { return small(d.out + d.pad_begin + (d.kernel - 1) * d.dilation); };
  const bool near = std::all_of(w.dim.begin(), w.dim.end(), looks);
  if (!near || !fits(w) || !small(s.channels * w.in_elements()) || !small(s.filters * w.kernel_elements()) ||
      !small(s.groups * s.filters)) {
    return Cost::cannot("an image or a window is more than 2^31 elements");
  }
  return Cost(0);
}

/// io: y, x, weights, bias.
void run_conv_transpose(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::ConvTransposeParams*>(params);
  p.y = at<float>(io, 0);
  p.x = at<float>(io, 1);
  p.w = at<float>(io, 2);
  p.bias = at<float>(io, 3);
  const int64_t area = int64_t{p.axes[0].out} * p.axes[1].out * p.axes[2].out;
  launch_elements(context, Kernel::conv_transpose, p.batch * p.groups * p.filters * area, p);
}

void lower_conv_transpose(LowerContext& c) {
  const TransposeShape s = transpose_shape(c);
  const auto [terms, apart] = reaching_taps(s.window);
  const int64_t chunk = kernels::sum_chunk(terms), taps = s.window.kernel_elements();
  device::ConvTransposeParams p{};
  for (size_t d = 0; d < 3; ++d) p.axes[d] = axis_of(s.window.dim[d]);
  p.batch = s.batch;
  p.groups = static_cast<int32_t>(s.groups);
  p.channels = static_cast<int32_t>(s.channels);
  p.filters = static_cast<int32_t>(s.filters);
  p.chunk = static_cast<int32_t>(kernels::sum_chunk(s.channels));
  p.tap_chunk = static_cast<int32_t>(chunk < terms ? chunk * apart : taps);
  c.step(run_conv_transpose, p, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}});
}

}  // namespace
}  // namespace cuda

void register_cuda_conv_transpose(OpRegistry& r) {
  using namespace cuda;
  add(r, kOnnx, "ConvTranspose", lower_conv_transpose, conv_transpose_cost, Precision::kFloat32);
}

}  // namespace inferkit
