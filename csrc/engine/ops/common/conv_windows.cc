// Conv in float32 by GEMM whose B is the windows of a padded copy of the image, read in place: nothing is copied once a
// tap. Columns and rows are split by stride, so that the pixels of an output row lie side by side for every tap; tap
// (c, i, j) is then one offset. The places between the output's rows are computed and dropped.
#include <limits>

#include "engine/ops/common/conv.h"
#include "kernels/cpu/gemm/gemm.h"
#include "platform/isa.h"

namespace inferkit {
namespace {

using kernels::ConvDim;
using kernels::kPanelColumns;

constexpr int64_t kMostTaps = 1 << 20;      // of the table of offsets, which a plan holds
constexpr int64_t kBlockBytes = 512 << 10;  // of the copy: it stays in L2 beside the weights
constexpr int64_t kMinPlaces = 64;          // of a block
constexpr int64_t kMaxFloats = std::numeric_limits<int32_t>::max() / 2;
constexpr int64_t kSlack = 64;  // floats past the copy that kernels touch

/// How a layer's image is split; a block is some output rows, or some columns where there is one row.
struct Split {
  ConvDim h, w;
  int64_t h_phases, w_phases, h_reach, w_reach;  // reach: rows and columns of a phase past the output's
  int64_t shared;                                // columns that pad a row on the right and the next one on the left
  bool possible;

  bool by_columns() const { return h.out == 1; }
  /// A block is made of units: rows of output, or columns. `unit_places` belong to one.
  int64_t units() const { return by_columns() ? w.out : h.out; }
  int64_t pitch() const { return w.out + w_reach - shared; }
  int64_t unit_places() const { return by_columns() ? 1 : pitch(); }
  int64_t reach() const { return by_columns() ? w_reach : h_reach; }
  int64_t least_block() const { return std::min(units(), (kMinPlaces + unit_places() - 1) / unit_places()); }
  /// Floats of the copy for a unit.
  int64_t unit_floats(int64_t channels) const {
    return channels * phases() * (by_columns() ? h_reach + 1 : unit_places());
  }
  /// The block whose copy fits the cache.
  int64_t block(int64_t channels) const {
    const int64_t fit = kBlockBytes / static_cast<int64_t>(sizeof(float)) / unit_floats(channels);
    return std::clamp(fit - reach(), least_block(), units());
  }
  int64_t phases() const { return h_phases * w_phases; }
};

Split split_of(const ConvShape& s) {
  ConvDim dim[3];
  for (size_t d = 0; d < 3; ++d) dim[d] = conv_dim(s.window.dim[d]);
  move_in(dim);
  Split split{};
  if (s.pointwise() || s.window_elements() == 0 || s.window_elements() > kMostTaps) return split;
  split.h = dim[1];
  split.w = dim[2];
  split.possible = is_single(dim[0]);
  split.h_phases = phases_of(split.h);
  split.w_phases = phases_of(split.w);
  split.h_reach = (split.h.kernel - 1) * split.h.dilation / split.h.stride;
  split.w_reach = (split.w.kernel - 1) * split.w.dilation / split.w.stride;
  if (split.w.stride == 1 && !split.by_columns()) {
    const int64_t right = split.w.out + split.w_reach - split.w.pad_begin - split.w.in;
    split.shared = std::clamp<int64_t>(std::min(split.w.pad_begin, right), 0, split.w_reach);
  }
  const auto phases = static_cast<double>(split.h_phases) * static_cast<double>(split.w_phases);
  const auto most = static_cast<double>(std::max(split.w.out + split.w_reach, split.h_reach + 1));
  split.possible = split.possible && static_cast<double>(s.channels) * phases * most < kMaxFloats;
  return split;
}

struct WindowsParams {
  kernels::WindowGemmArgs gemm;
  kernels::SplitPlaneArgs split;
  bool by_columns;
  kernels::Unary act;
  float act_alpha, act_beta;
  int slots;
  int64_t images, groups, channels, in_area, out_area;  // images: of all groups
  int64_t reach;                                        // of a block's rows
  int64_t block, blocks;                                // of rows or columns
  int64_t parts;                                        // of the filters, where threads outnumber the blocks
  int64_t slot_floats;
};

void windows_task(const WindowsParams& p, std::byte* const* io, int64_t task, int64_t parts, float* scratch) {
  const int64_t part = task % parts, block = task / parts % p.blocks, image = task / parts / p.blocks;
  const int64_t group = image % p.groups, filters = p.gemm.m, first = block * p.block;
  const int64_t row = filters * part / parts, rows = filters * (part + 1) / parts - row;
  kernels::SplitPlaneArgs split = p.split;
  kernels::WindowGemmArgs g = p.gemm;
  int64_t pixel = 0;
  if (p.by_columns) {
    split.w.pad_begin -= first * split.w.stride;
    split.rows = p.reach + 1;
    g.n = g.width = std::min(p.block, split.w.out - first);
    pixel = first;
  } else {
    split.first = first;
    const int64_t out_rows = std::min(p.block, split.h.out - first);
    split.rows = out_rows + p.reach;
    g.n = (out_rows - 1) * g.pitch + g.width;
    pixel = first * g.width;
  }
  const float* x = reinterpret_cast<const float*>(io[1]) + image * p.channels * p.in_area;
  const auto split_plane = kernels::conv_kernels().split_plane;
  for (int64_t c = 0; c < p.channels; ++c) {
    split.x = x + c * p.in_area;
    split.to = scratch + c * split.h_phases * split.w_phases * split.plane;
    split_plane(split);
  }
  g.m = rows;
  g.a = reinterpret_cast<const float*>(io[2]) + (group * filters + row) * g.k;
  g.b = scratch;
  g.offsets = reinterpret_cast<const int32_t*>(io[5]);
  g.c = reinterpret_cast<float*>(io[0]) + (image * filters + row) * p.out_area + pixel;
  if (io[3]) g.bias = reinterpret_cast<const float*>(io[3]) + group * filters + row;
  kernels::gemm_kernels().gemm_windows(g);
  if (g.rectify || p.act == kernels::Unary::kIdentity) return;
  const int64_t pixels = p.by_columns ? g.n : (split.rows - p.reach) * g.width;
  const auto activate = kernels::unary_fn(p.act);
  for (int64_t r = 0; r < rows; ++r) activate(g.c + r * g.ldc, g.c + r * g.ldc, pixels, p.act_alpha, p.act_beta);
}

/// io: y, x, weights, bias, scratch, offsets.
void run_windows(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const WindowsParams*>(params);
  const int64_t parts = !context.pool || context.max_threads < 2 ? 1 : p.parts;
  for_tasks(context, p.images * p.blocks * parts, p.slots, [&](int64_t task, int64_t slot) {
    windows_task(p, io, task, parts, reinterpret_cast<float*>(io[4]) + slot * p.slot_floats);
  });
}

/// Where each tap of each channel begins in the copy.
std::shared_ptr<const void> tap_offsets(const ConvShape& s, const Split& split, int64_t pitch, int64_t plane) {
  void* data = nullptr;
  const Tensor offsets = make_tensor(DType::kI32, {s.window_elements()}, &data);
  auto* to = static_cast<int32_t*>(data);
  const ConvDim &h = split.h, &w = split.w;
  for (int64_t c = 0; c < s.channels; ++c) {
    for (int64_t i = 0; i < h.kernel; ++i) {
      for (int64_t j = 0; j < w.kernel; ++j) {
        const int64_t y = i * h.dilation, x = j * w.dilation;
        const int64_t phase = (c * split.h_phases + y % h.stride) * split.w_phases + x % w.stride;
        *to++ = static_cast<int32_t>(phase * plane + y / h.stride * pitch + x / w.stride);
      }
    }
  }
  return {offsets.owner, offsets.data};
}

}  // namespace

Cost conv_windows_cost(const NodeContext& c) {
  const ConvShape s = conv_shape(c);
  if (s.pointwise()) return Cost::cannot("a window is one pixel: there is nothing to copy");
  const Split split = split_of(s);
  if (!split.possible) return Cost::cannot("three dimensions, or too many taps or columns");
  const int64_t block = split.block(s.channels), blocks = (split.units() + block - 1) / block;
  const auto each = static_cast<double>(split.unit_floats(s.channels)), reach = static_cast<double>(split.reach());
  if ((static_cast<double>(block) + reach + 1 + kPanelColumns) * each > kMaxFloats)
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
  const Split split = split_of(s);
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
  p.by_columns = split.by_columns();
  p.images = s.batch * s.groups;
  p.groups = s.groups;
  p.channels = s.channels;
  p.in_area = s.window.in_elements();
  p.reach = split.h_reach;
  const int64_t products = p.images * s.filters * p.gemm.k * p.out_area;
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);

  const int64_t units = split.units();
  p.block = split.block(s.channels);
  if (p.slots > 1 && p.images < 2 * p.slots) {  // two tasks per thread at least, where blocks stay worth their weights
    const int64_t want = (2 * p.slots + p.images - 1) / p.images;
    p.block = std::clamp((units + want - 1) / want, split.least_block(), p.block);
  }
  p.blocks = (units + p.block - 1) / p.block;
  p.block = (units + p.blocks - 1) / p.blocks;
  if (p.by_columns) p.block = std::min(units, (p.block + kPanelColumns - 1) / kPanelColumns * kPanelColumns);
  p.blocks = (units + p.block - 1) / p.block;
  p.parts = 1;
  if (p.images * p.blocks < p.slots)
    p.parts = std::max<int64_t>(1, std::min<int64_t>(p.slots / (p.images * p.blocks), s.filters / 24));

  p.split.h = split.h;
  p.split.w = split.w;
  p.split.h_phases = split.h_phases;
  p.split.w_phases = split.w_phases;
  p.split.width = (p.by_columns ? p.block : split.w.out) + split.w_reach;
  p.split.pitch = p.gemm.pitch = p.split.width - split.shared;
  p.split.plane = ((p.by_columns ? 1 : p.block) + split.h_reach) * p.split.pitch + split.shared + kPanelColumns;
  p.gemm.width = split.w.out;
  p.slot_floats = s.channels * split.phases() * p.split.plane + kSlack;
  const auto offsets = tap_offsets(s, split, p.split.pitch, p.split.plane);
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  c.step(run_windows, p,
         {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}, scratch, c.constant(offsets.get(), offsets)},
         static_cast<double>(products) / 30 + static_cast<double>(p.images * p.slot_floats) / 4);
}

}  // namespace inferkit
