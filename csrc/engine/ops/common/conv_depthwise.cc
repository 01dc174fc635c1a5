// Conv in float32 with one channel a group: the kernel reads the rows of a padded copy of the plane, split by stride.
#include "engine/ops/common/conv.h"
#include "kernels/cpu/gemm/gemm.h"

namespace inferkit {
namespace {

constexpr int64_t kPlaneBytes = 64 << 10;  // of a plane's padded rows

struct DepthwiseParams {
  kernels::ConvDim h, w;
  kernels::Unary act;
  float act_alpha, act_beta;
  int slots;
  int64_t images, filters, groups;  // filters: per group, which is one input channel
  int64_t block, blocks;            // of output rows
  int64_t slot_floats;
};

void depthwise_task(const DepthwiseParams& p, std::byte* const* io, int64_t task, float* scratch) {
  const int64_t block = task % p.blocks, plane = task / p.blocks;  // an output plane
  const int64_t filter = plane % (p.filters * p.groups);
  kernels::DepthwiseArgs a;
  a.x = reinterpret_cast<const float*>(io[1]) + plane / p.filters * p.h.in * p.w.in;
  a.y = reinterpret_cast<float*>(io[0]) + plane * p.h.out * p.w.out;
  a.weights = reinterpret_cast<const float*>(io[2]) + filter * p.h.kernel * p.w.kernel;
  if (io[3]) a.bias = reinterpret_cast<const float*>(io[3])[filter];
  a.h = p.h;
  a.w = p.w;
  a.first = block * p.block;
  a.rows = std::min(p.block, p.h.out - a.first);
  a.scratch = scratch;
  kernels::conv_kernels().depthwise(a);
  if (p.act == kernels::Unary::kIdentity) return;
  float* y = a.y + a.first * p.w.out;
  kernels::unary_fn(p.act)(y, y, a.rows * p.w.out, p.act_alpha, p.act_beta);
}

void run_depthwise(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const DepthwiseParams*>(params);
  for_tasks(context, p.images * p.groups * p.filters * p.blocks, p.slots, [&](int64_t task, int64_t slot) {
    depthwise_task(p, io, task, reinterpret_cast<float*>(io[4]) + slot * p.slot_floats);
  });
}

}  // namespace

Cost conv_depthwise_cost(const NodeContext& c) {
  const ConvShape s = conv_shape(c);
  const bool depthwise =
      kernels::is_depthwise(s.channels, s.groups, s.window.rank, conv_dim(s.window.dim[1]), conv_dim(s.window.dim[2]));
  if (!depthwise) return Cost::cannot("not one channel a group, or a window that its kernel is not for");
  // Its products alone: it copies less than any other way does, and as measured it never loses to one.
  return conv_cost(s,
                   multiplied(s.filters, s.window.kernel_elements(), s.window.out_elements()) / kernels::kPanelColumns);
}

void lower_conv_depthwise(LowerContext& c) {
  const ConvShape s = conv_shape(c);
  const FusedActivation act = fused_activation(c);
  DepthwiseParams p{};
  p.h = conv_dim(s.window.dim[1]);
  p.w = conv_dim(s.window.dim[2]);
  p.act = act.op;
  p.act_alpha = act.alpha;
  p.act_beta = act.beta;
  p.images = s.batch;
  p.filters = s.filters;
  p.groups = s.groups;
  p.block = p.h.out;
  while (p.block > kernels::kLeastDepthwiseRows && kernels::depthwise_scratch(p.h, p.w, p.block) * 4 > kPlaneBytes)
    p.block = (p.block + 1) / 2;
  p.blocks = (p.h.out + p.block - 1) / p.block;
  p.slot_floats = (kernels::depthwise_scratch(p.h, p.w, p.block) + 15) / 16 * 16;
  const double products = multiplied(s.batch, s.groups, s.filters, s.window.kernel_elements(), s.window.out_elements());
  const double nanos = products / 12;
  p.slots = nanos < kConvParallelNanos ? 1 : std::min(c.threads(), kMaxConvSlots);
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  c.step(run_depthwise, p, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}, scratch}, nanos);
}

}  // namespace inferkit
