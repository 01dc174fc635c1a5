// Conv in float32 with one channel a group, sixteen of them at once: a lane each, so that small images fill them.
#include "engine/ops/activation_attr.h"
#include "engine/ops/common/conv.h"

namespace inferkit {
namespace {

constexpr int64_t kWide = 16;              // channels at once
constexpr int64_t kLargestArea = 64 * 64;  // of an image, whose channels are copied side by side

struct ChannelsParams {
  kernels::ConvDim h, w;
  kernels::Unary act;
  float act_alpha, act_beta;
  int64_t images, channels, blocks;  // blocks of channels of an image
  int64_t slot_floats;
  int slots;
};

/// io: y, x, packed weights, bias or null, scratch.
void channels_task(const ChannelsParams& p, std::byte* const* io, int64_t task, float* scratch) {
  const int64_t block = task % p.blocks, first = task / p.blocks * p.channels + block * kWide;  // a plane
  kernels::DepthwiseChannelsArgs a;
  a.h = p.h;
  a.w = p.w;
  a.channels = std::min(kWide, p.channels - block * kWide);
  a.x = reinterpret_cast<const float*>(io[1]) + first * p.h.in * p.w.in;
  a.y = reinterpret_cast<float*>(io[0]) + first * p.h.out * p.w.out;
  a.weights = reinterpret_cast<const float*>(io[2]) + block * p.h.kernel * p.w.kernel * kWide;
  alignas(64) float bias[kWide] = {};
  if (io[3]) {
    std::copy_n(reinterpret_cast<const float*>(io[3]) + block * kWide, a.channels, bias);
    a.bias = bias;
  }
  a.scratch = scratch;
  kernels::conv_kernels().depthwise_channels(a);
  if (p.act == kernels::Unary::kIdentity) return;
  kernels::unary_fn(p.act)(a.y, a.y, a.channels * p.h.out * p.w.out, p.act_alpha, p.act_beta);
}

void run_channels(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ChannelsParams*>(params);
  for_tasks(context, p.images * p.blocks, p.slots, [&](int64_t task, int64_t slot) {
    channels_task(p, io, task, reinterpret_cast<float*>(io[4]) + slot * p.slot_floats);
  });
}

/// The taps of all outputs along a dimension that lie in the image.
double taps_inside(const WindowDim& d) {
  double taps = 0;
  for (int64_t o = 0; o < d.out; ++o) taps += static_cast<double>(d.taps(o).count());
  return taps;
}

/// In multiply-adds of sixteen lanes, for sixteen channels, with what is copied; beside what the plane by plane way
/// takes for them.
double vectors(const Window& w) {
  return taps_inside(w.dim[1]) * taps_inside(w.dim[2]) * 1.6 +
         8 * static_cast<double>(w.in_elements() + w.out_elements()) + 100;
}
double vectors_by_planes(const Window& w) {
  const WindowDim &down = w.dim[1], &across = w.dim[2];
  const double rows = static_cast<double>((down.out - 1) * down.stride + (down.kernel - 1) * down.dilation + 1);
  const double row = static_cast<double>(kernels::depthwise_row(conv_dim(across)) * across.stride) / 16;
  const double tiles = static_cast<double>(down.out * ((across.out + 15) / 16));
  return 16 * (tiles * static_cast<double>(w.kernel_elements()) * 1.3 + rows * row * 2 + 150);
}

}  // namespace

Cost conv_channels_cost(const NodeContext& c) {
  const ConvShape s = conv_shape(c);
  const Window& w = s.window;
  if (s.channels != 1 || s.filters != 1 || s.groups < kWide) return Cost::cannot("not sixteen groups of one channel");
  if (w.rank > 2 || w.dim[2].dilation != 1) return Cost::cannot("the window has three dimensions, or gaps in its rows");
  if (std::max(w.in_elements(), w.out_elements()) > kLargestArea) return Cost::cannot("the image is too large");
  if (!c.input(1).constant) return Cost::cannot("the weights are no constant");
  const double by_planes = static_cast<double>(w.kernel_elements() * w.out_elements()) / kWide;  // as that way says
  return conv_cost(s, by_planes * vectors(w) / vectors_by_planes(w));
}

void lower_conv_channels(LowerContext& c) {
  const ConvShape s = conv_shape(c);
  const FusedActivation act = fused_activation(c);
  ChannelsParams p{};
  p.h = conv_dim(s.window.dim[1]);
  p.w = conv_dim(s.window.dim[2]);
  p.act = act.op;
  p.act_alpha = act.alpha;
  p.act_beta = act.beta;
  p.images = s.batch;
  p.channels = s.groups;
  p.blocks = (s.groups + kWide - 1) / kWide;
  p.slot_floats = (s.window.in_elements() + s.window.out_elements()) * kWide;
  const int64_t taps = s.window.kernel_elements();
  const int64_t products = s.batch * s.groups * taps * s.window.out_elements();
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  const Tensor* const weights = c.input(1).constant;
  const Packing packing{"depthwise-channels", DType::kF32, p.blocks * taps * kWide, {}};
  const Ref packed = c.packed({weights}, packing, [&](void* to) {
    auto* out = static_cast<float*>(to);
    std::fill_n(out, p.blocks * taps * kWide, 0.0f);
    for (int64_t g = 0; g < s.groups; ++g) {
      for (int64_t t = 0; t < taps; ++t)
        out[(g / kWide * taps + t) * kWide + g % kWide] = weights->as<float>()[g * taps + t];
    }
  });
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  c.step(run_channels, p, {c.out(0), c.in(0), packed, c.has_input(2) ? c.in(2) : Ref{}, scratch},
         static_cast<double>(s.batch * p.blocks) * vectors(s.window) * 0.5);
}

}  // namespace inferkit
