// Conv in float32 by GEMM whose B is the windows of a padded copy of the image, read in place: nothing is copied once a
// tap. Columns and rows are split by stride, so that the pixels of an output row lie side by side for every tap; tap
// (c, i, j) is then one offset. The places between the output's rows are computed and dropped.
#include "engine/ops/common/conv_split.h"
#include "kernels/cpu/gemm/gemm.h"
#include "platform/isa.h"

namespace inferkit {
namespace {

using kernels::kPanelColumns;

constexpr int64_t kSlack = 64;  // floats past the copy that kernels touch

struct WindowsParams {
  kernels::WindowGemmArgs gemm;
  SplitCopy copy;
  kernels::Unary act;
  float act_alpha, act_beta;
  int slots;
  int64_t images, groups, out_area;  // images: of all groups
  int64_t parts;                     // of the filters, where threads outnumber the blocks
  int64_t slot_floats;
};

void windows_task(const WindowsParams& p, std::byte* const* io, int64_t task, int64_t parts, float* scratch) {
  const int64_t part = task % parts, block = task / parts % p.copy.blocks, image = task / parts / p.copy.blocks;
  const int64_t group = image % p.groups, filters = p.gemm.m;
  const int64_t row = filters * part / parts, rows = filters * (part + 1) / parts - row;
  kernels::WindowGemmArgs g = p.gemm;
  const float* x = reinterpret_cast<const float*>(io[1]) + image * p.copy.channels * p.copy.in_area;
  const CopiedBlock copied = copy_block(p.copy, x, block, scratch);
  g.width = copied.width;
  g.n = (copied.rows - 1) * g.pitch + g.width;
  g.m = rows;
  g.a = reinterpret_cast<const float*>(io[2]) + (group * filters + row) * g.k;
  g.b = scratch;
  g.offsets = reinterpret_cast<const int32_t*>(io[5]);
  g.c = reinterpret_cast<float*>(io[0]) + (image * filters + row) * p.out_area + copied.pixel;
  if (io[3]) g.bias = reinterpret_cast<const float*>(io[3]) + group * filters + row;
  kernels::gemm_kernels().gemm_windows(g);
  if (g.rectify || p.act == kernels::Unary::kIdentity) return;
  const int64_t pixels = copied.rows * copied.width;
  const auto activate = kernels::unary_fn(p.act);
  for (int64_t r = 0; r < rows; ++r) activate(g.c + r * g.ldc, g.c + r * g.ldc, pixels, p.act_alpha, p.act_beta);
}

/// io: y, x, weights, bias, scratch, offsets.
void run_windows(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const WindowsParams*>(params);
  const int64_t parts = !context.pool || context.max_threads < 2 ? 1 : p.parts;
  for_tasks(context, p.images * p.copy.blocks * parts, p.slots, [&](int64_t task, int64_t slot) {
    windows_task(p, io, task, parts, reinterpret_cast<float*>(io[4]) + slot * p.slot_floats);
  });
}

}  // namespace

Cost conv_windows_cost(const NodeContext& c) {
  const ConvShape s = conv_shape(c);
  if (s.pointwise()) return Cost::cannot("a window is one pixel: there is nothing to copy");
  const ConvSplit split = split_of(s);
  if (!split.possible) return Cost::cannot("three dimensions, or too many taps or columns");
  const int64_t block = split.block(s.channels), blocks = (split.units() + block - 1) / block;
  const auto each = static_cast<double>(split.unit_floats(s.channels)), reach = static_cast<double>(split.reach());
  if ((static_cast<double>(block) + reach + 1 + kPanelColumns) * each > ConvSplit::kMostFloats)
    return Cost::cannot("a block's copy is too large");
  const double copied = (static_cast<double>(split.units()) + static_cast<double>(blocks) * reach) * each;
  const double places = static_cast<double>(split.h.out) * static_cast<double>(split.pitch());
  const double stored = std::ceil((places - static_cast<double>(split.pitch() - split.w.out)) / kPanelColumns) *
                        static_cast<double>(s.filters);
  const double products = stored * static_cast<double>(s.window_elements());
  // As measured: a vector's copying, what unaligned reads from many planes cost the sums, and what it takes to store a
  // vector of sums without masks, more where it ends one row and begins the next.
  const double copying = split.w.stride == 1 ? 24 : split.w.stride == 2 ? 32 : 60;
  const double reading = s.window_elements() < 512 ? 1.03 : 1.06;
  const double storing = active_isa() == Isa::kAvx512 ? 0 : split.by_columns() ? 6 : 8;
  return conv_cost(s, products * reading + stored * storing + copied / kPanelColumns * copying);
}

void lower_conv_windows(LowerContext& c) {
  const ConvShape s = conv_shape(c);
  const ConvSplit split = split_of(s);
  const FusedActivation act = fused_activation(c);
  WindowsParams p{};
  p.gemm.m = s.filters;
  p.gemm.k = p.gemm.lda = s.window_elements();
  p.gemm.ldc = p.out_area = s.window.out_elements();
  p.gemm.rectify = act.op == kernels::Unary::kRelu;
  p.gemm.k_chunk = kernels::sum_chunk(p.gemm.k);
  p.act = act.op;
  p.act_alpha = act.alpha;
  p.act_beta = act.beta;
  p.images = s.batch * s.groups;
  p.groups = s.groups;
  const double products = multiplied(p.images, s.filters, p.gemm.k, p.out_area);
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);

  int64_t block = split.block(s.channels);
  if (p.slots > 1 && p.images < 2 * p.slots) {  // two tasks per thread at least, where blocks stay worth their weights
    const int64_t want = (2 * p.slots + p.images - 1) / p.images;
    block = std::clamp((split.units() + want - 1) / want, split.least_block(), block);
  }
  p.copy = split_copy(s, split, block);
  p.parts = 1;
  if (p.images * p.copy.blocks < p.slots)
    p.parts = std::max<int64_t>(1, std::min<int64_t>(p.slots / (p.images * p.copy.blocks), s.filters / 24));
  p.gemm.pitch = p.copy.split.pitch;
  p.gemm.width = split.w.out;
  p.slot_floats = p.copy.planes() * p.copy.split.plane + kSlack;
  const auto offsets = tap_offsets(s, split, p.copy.split.pitch, p.copy.split.plane);
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  c.step(run_windows, p,
         {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}, scratch, c.constant(offsets.get(), offsets)},
         products / 30 + multiplied(p.images, p.slot_floats) / 4);
}

}  // namespace inferkit
