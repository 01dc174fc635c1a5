// Conv in float32 with one channel a group, sixteen of them at once: a lane each, so that small images fill them.
#include "engine/ops/common/conv.h"
#include "platform/isa.h"

namespace inferkit {
namespace {

constexpr int64_t kWide = 16;                          // channels at once
constexpr int64_t kBlocksPerSlot = 4, kLeastRows = 3;  // of a block that several threads share
constexpr int64_t kLargestArea = 128 * 128;            // of an image, whose channels are copied side by side

struct ChannelsParams {
  kernels::ConvDim h, w;
  kernels::Bounds bounds;
  kernels::Unary act;  // where it is not those
  float act_alpha, act_beta;
  int64_t images, channels, blocks;  // blocks of channels of an image
  int64_t row_parts;                 // of a block, where threads outnumber them
  int64_t slot_floats;
  bool in_blocks, out_blocks;  // sixteen channels of a pixel side by side, as they are added up
  int slots;
};

/// io: y, x, packed weights, bias or null, scratch.
void channels_task(const ChannelsParams& p, std::byte* const* io, int64_t task, float* scratch) {
  const int64_t part = task % p.row_parts, block = task / p.row_parts % p.blocks;
  const int64_t first = task / p.row_parts / p.blocks * p.channels + block * kWide;  // a plane
  const int64_t row = p.h.out * part / p.row_parts, rows = p.h.out * (part + 1) / p.row_parts - row;
  kernels::DepthwiseChannelsArgs a;
  a.h = p.h;
  a.w = p.w;
  a.channels = std::min(kWide, p.channels - block * kWide);
  a.x = reinterpret_cast<const float*>(io[1]) + first * p.h.in * p.w.in;
  a.y = reinterpret_cast<float*>(io[0]) + first * p.h.out * p.w.out + row * p.w.out * kWide;  // else row is 0
  a.h.out = rows;
  a.h.pad_begin -= row * p.h.stride;
  a.weights = reinterpret_cast<const float*>(io[2]) + block * p.h.kernel * p.w.kernel * kWide;
  alignas(64) float bias[kWide] = {};
  if (io[3]) {
    std::copy_n(reinterpret_cast<const float*>(io[3]) + block * kWide, a.channels, bias);
    a.bias = bias;
  }
  a.scratch = scratch;
  a.bounds = p.bounds;
  a.x_pixels = p.in_blocks;
  a.y_pixels = p.out_blocks;
  kernels::conv_kernels().depthwise_channels(a);
  if (p.act == kernels::Unary::kIdentity) return;
  kernels::unary_fn(p.act)(a.y, a.y, a.channels * rows * p.w.out, p.act_alpha, p.act_beta);
}

void run_channels(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ChannelsParams*>(params);
  for_tasks(context, p.images * p.blocks * p.row_parts, p.slots, [&](int64_t task, int64_t slot) {
    channels_task(p, io, task, reinterpret_cast<float*>(io[4]) + slot * p.slot_floats);
  });
}

/// The taps of all outputs along a dimension that lie in the image.
double taps_inside(const WindowDim& d) {
  double taps = 0;
  for (int64_t o = 0; o < d.out; ++o) taps += static_cast<double>(d.taps(o).count());
  return taps;
}

/// Both ways have kernels of their own for narrow windows.
bool is_narrow(const Window& w) {
  return w.kernel_elements() < 32 && w.dim[2].stride < 3 && (w.dim[2].kernel == 3 || w.dim[2].kernel == 5);
}

/// In multiply-adds of sixteen lanes, for sixteen channels, with what is copied; beside what the plane by plane way
/// takes for them. As measured.
double vectors(const Window& w, bool in_blocks, bool out_blocks) {
  const int64_t moved = (in_blocks ? 0 : w.in_elements()) + (out_blocks ? 0 : w.out_elements());
  const double taps = taps_inside(w.dim[1]) * taps_inside(w.dim[2]), copied = static_cast<double>(moved);
  return is_narrow(w) ? taps * 1.35 + copied * 5 + 100 : taps * 1.6 + copied * 8 + 100;
}
double vectors_by_planes(const Window& w) {
  const WindowDim &down = w.dim[1], &across = w.dim[2];
  const auto is_seven = [](const WindowDim& d) { return d.kernel == 7 && d.stride == 1 && d.dilation == 1; };
  if (active_isa() == Isa::kAvx512 && is_seven(down) && is_seven(across)) {  // depthwise_seven_impl.h
    return 16 * (taps_inside(down) * static_cast<double>((across.out + 15) / 16 * across.kernel) * 1.2 + 60);
  }
  const double rows = static_cast<double>((down.out - 1) * down.stride + (down.kernel - 1) * down.dilation + 1);
  const double row = multiplied(kernels::depthwise_row(conv_dim(across)), across.stride) / 16;
  const double tiles = multiplied(down.out, (across.out + 15) / 16);
  return 16 * (tiles * static_cast<double>(w.kernel_elements()) * (is_narrow(w) ? 0.75 : 1.3) + rows * row * 2 + 150);
}

}  // namespace

Cost conv_channels_cost(const NodeContext& c) {
  const ConvShape s = conv_shape(c);
  const Window& w = s.window;
  if (s.channels != 1 || s.filters != 1 || s.groups < kWide) return Cost::cannot("not sixteen groups of one channel");
  if (w.rank > 2 || w.dim[2].dilation != 1) return Cost::cannot("the window has three dimensions, or gaps in its rows");
  if (std::max(w.in_elements(), w.out_elements()) > kLargestArea) return Cost::cannot("the image is too large");
  if (!c.input(1).constant) return Cost::cannot("the weights are no constant");
  return Cost(conv_channels_nanos(c, false, false));
}

double conv_channels_nanos(const NodeContext& c, bool in_blocks, bool out_blocks) {
  const ConvShape s = conv_shape(c);
  const Window& w = s.window;
  const double by_planes = multiplied(w.kernel_elements(), w.out_elements()) / kWide;  // as that way says
  return conv_cost(s, by_planes * vectors(w, in_blocks, out_blocks) / vectors_by_planes(w)).nanos();
}

void lower_conv_channels(LowerContext& c) {
  const ConvShape s = conv_shape(c);
  const FusedActivation act = fused_activation(c);
  ChannelsParams p{};
  p.h = conv_dim(s.window.dim[1]);
  p.w = conv_dim(s.window.dim[2]);
  p.bounds = bounds_of(act);
  p.act = p.bounds.bounded ? kernels::Unary::kIdentity : act.op;
  p.act_alpha = act.alpha;
  p.act_beta = act.beta;
  p.images = s.batch;
  p.channels = s.groups;
  p.blocks = (s.groups + kWide - 1) / kWide;
  const bool joined = c.has_input(4);
  const Lying x = joined ? Lying{{}, Layout::kBlocks} : c.lying(0);
  p.in_blocks = x.layout == Layout::kBlocks;
  p.out_blocks = c.wanted(0) == Layout::kBlocks;
  p.slot_floats = ((p.in_blocks ? 0 : s.window.in_elements()) + (p.out_blocks ? 0 : s.window.out_elements())) * kWide;
  const int64_t taps = s.window.kernel_elements();
  const double nanos = multiplied(s.batch, p.blocks) * vectors(s.window, p.in_blocks, p.out_blocks) * 0.5;
  p.slots = nanos < kConvParallelNanos ? 1 : std::min(c.threads(), kMaxConvSlots);
  // Whole planes are turned into pixels; rows of what lies so already can be anybody's.
  const int64_t tasks = std::max<int64_t>(1, s.batch * p.blocks), want = p.slots * kBlocksPerSlot;
  p.row_parts = 1;
  if (p.in_blocks && p.out_blocks && p.slots > 1)
    p.row_parts = std::clamp<int64_t>((want + tasks - 1) / tasks, 1, std::max<int64_t>(1, p.h.out / kLeastRows));
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
  if (joined) return lower_conv_expanded(c, packed, nanos);
  const Ref scratch = p.slot_floats ? c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float)) : Ref{};
  c.step(run_channels, p, {c.out(0), x.ref, packed, c.has_input(2) ? c.in(2) : Ref{}, scratch}, nanos);
}

}  // namespace inferkit
