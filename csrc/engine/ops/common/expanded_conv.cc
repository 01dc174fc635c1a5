// A pointwise convolution and the depthwise one that alone reads it, as one step: some rows of some blocks of channels
// are summed up, and their windows while they are in the cache. So what the first one widens, which is the largest
// value of a network of inverted residuals, is never whole in memory.
#include <cstring>

#include "engine/compile/layouts.h"
#include "engine/ops/common/conv.h"
#include "engine/ops/common/packed_panels.h"
#include "kernels/summation.h"

namespace inferkit {
namespace {

constexpr int64_t kLanesAtOnce = kBlockChannels;
constexpr int64_t kRoomBytes = 128 << 10;  // of rows between the two, far less than L2
constexpr int64_t kNarrow = 9;             // pixels of a row for which three blocks fill a tile, else two do
constexpr int64_t kExpandedTasks = 4;      // a thread, so that one that comes late does not hold up the rest
constexpr int64_t kLeastExpanded = 6;      // rows of the output of a task, which sums up some more before and behind

struct ExpandedParams {
  kernels::ConvBlocksArgs sums;
  kernels::DepthwiseChannelsArgs windows;
  FusedActivation between, after;  // where bounds do not do it
  int64_t images, blocks, groups, row_parts;
  int64_t rows;       // of the output at once
  int64_t room_rows;  // that these read
  int64_t x_floats;   // of an image
  int slots;
  int64_t slot_floats;
};

const float* floats_of(std::byte* const* io, int i) { return reinterpret_cast<const float*>(io[i]); }

/// io: y, x, the weights and the bias of the pointwise one, those of the depthwise one, scratch, offsets.
void expanded_task(const ExpandedParams& p, std::byte* const* io, int64_t task, int64_t slot) {
  const kernels::ConvKernels& kernels = kernels::conv_kernels();
  const kernels::ConvDim &h = p.windows.h, &w = p.windows.w;
  const int64_t part = task % p.row_parts, group = task / p.row_parts % p.groups, image = task / p.row_parts / p.groups;
  const int64_t first = p.blocks * group / p.groups, blocks = p.blocks * (group + 1) / p.groups - first;
  const int64_t end = h.out * (part + 1) / p.row_parts, row_floats = w.in * kLanesAtOnce;
  const int64_t taps = h.kernel * w.kernel, out_area = h.out * w.out;
  float* const room = reinterpret_cast<float*>(io[6]) + slot * p.slot_floats;
  kernels::ConvBlocksArgs sums = p.sums;
  sums.offsets = reinterpret_cast<const int32_t*>(io[7]);
  sums.weights = floats_of(io, 2) + first * kLanesAtOnce * sums.k;
  if (io[3]) sums.bias = floats_of(io, 3) + first * kLanesAtOnce;
  sums.filter_blocks = blocks;
  int64_t have = 0, have_end = 0;  // rows of the image that are in the room
  for (int64_t row = h.out * part / p.row_parts; row < end; row += p.rows) {
    if (!RunControl::goes_on()) return;
    const int64_t out_rows = std::min(p.rows, end - row), top = row * h.stride - h.pad_begin;
    const int64_t from = std::clamp<int64_t>(top, 0, h.in);
    const int64_t to = std::clamp(top + (out_rows - 1) * h.stride + (h.kernel - 1) * h.dilation + 1, from, h.in);
    const int64_t kept = std::max<int64_t>(0, have_end - from);
    for (int64_t b = 0; kept > 0 && from > have && b < blocks; ++b) {
      float* const rows = room + b * p.room_rows * row_floats;
      std::memmove(rows, rows + (from - have) * row_floats, static_cast<size_t>(kept * row_floats) * sizeof(float));
    }
    have = from;
    have_end = std::max(to, from + kept);
    sums.rows = have_end - from - kept;
    if (sums.rows > 0) {
      sums.x = floats_of(io, 1) + image * p.x_floats + (from + kept) * sums.x_row_step;
      sums.y = room + kept * row_floats;
      kernels.blocks(sums);
    }
    for (int64_t b = 0; b < blocks; ++b) {
      kernels::DepthwiseChannelsArgs a = p.windows;
      float* const rows = room + b * p.room_rows * row_floats;
      if (p.between.op != kernels::Unary::kIdentity && sums.rows > 0) {
        float* const fresh = rows + kept * row_floats;
        kernels::unary_fn(p.between.op)(fresh, fresh, sums.rows * row_floats, p.between.alpha, p.between.beta);
      }
      a.x = rows;
      a.y = reinterpret_cast<float*>(io[0]) + ((image * p.blocks + first + b) * out_area + row * w.out) * kLanesAtOnce;
      a.weights = floats_of(io, 4) + (first + b) * taps * kLanesAtOnce;
      if (io[5]) a.bias = floats_of(io, 5) + (first + b) * kLanesAtOnce;
      a.h.in = have_end - from;
      a.h.out = out_rows;
      a.h.pad_begin = from - top;
      kernels.depthwise_channels(a);
      if (p.after.op != kernels::Unary::kIdentity)
        kernels::unary_fn(p.after.op)(a.y, a.y, out_rows * w.out * kLanesAtOnce, p.after.alpha, p.after.beta);
    }
  }
}

void run_expanded(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ExpandedParams*>(params);
  for_tasks(context, p.images * p.groups * p.row_parts, p.slots,
            [&](int64_t task, int64_t slot) { expanded_task(p, io, task, slot); });
}

/// Where the channels of a pixel lie, in blocks or in planes.
std::shared_ptr<const void> channel_offsets(int64_t channels, int64_t area, int64_t step) {
  void* data = nullptr;
  const Tensor offsets = make_tensor(DType::kI32, {channels}, &data);
  for (int64_t c = 0; c < channels; ++c)
    static_cast<int32_t*>(data)[c] = static_cast<int32_t>(c / step * area * step + c % step);
  return {offsets.owner, offsets.data};
}

/// Takes the activation for bounds where it is some, and leaves it where it is not.
kernels::Bounds take_bounds(FusedActivation& act) {
  const kernels::Bounds bounds = bounds_of(act);
  if (bounds.bounded) act = {};
  return bounds;
}

}  // namespace

void lower_conv_expanded(LowerContext& c, const Ref& weights, double nanos) {
  const ConvShape s = conv_shape(c);
  const Lying x = c.lying(4);
  const Shape& wide = c.input(5).shape;  // the weights of the pointwise one
  ExpandedParams p{};
  p.between = fused_activation(c, "expansion");
  p.after = fused_activation(c);
  p.windows.h = conv_dim(s.window.dim[1]);
  p.windows.w = conv_dim(s.window.dim[2]);
  p.windows.bounds = take_bounds(p.after);
  p.windows.x_pixels = p.windows.y_pixels = true;
  const kernels::ConvDim &h = p.windows.h, &w = p.windows.w;
  p.images = s.batch;
  p.blocks = s.groups / kLanesAtOnce;
  const int64_t at_once = w.in <= kNarrow ? 3 : 2, step = x.layout == Layout::kBlocks ? kLanesAtOnce : 1;
  p.groups = (p.blocks + at_once - 1) / at_once;
  p.x_floats = wide[1] * h.in * w.in;

  const double products = multiplied(s.batch, h.in, w.in, s.groups, wide[1]);
  nanos += products / 32;
  p.slots = nanos < kConvParallelNanos ? 1 : std::min(c.threads(), kMaxConvSlots);
  const int64_t tasks = std::max<int64_t>(1, p.images * p.groups), most = std::max<int64_t>(1, h.out / kLeastExpanded);
  for (p.row_parts = 1; p.row_parts < most; ++p.row_parts) {
    const int64_t all = tasks * p.row_parts;
    if (p.slots == 1 || all >= kExpandedTasks * p.slots || (all >= 2 * p.slots && all % p.slots == 0)) break;
  }
  const int64_t reach = (h.kernel - 1) * h.dilation + 1, row_floats = w.in * kLanesAtOnce;
  const int64_t fit = kRoomBytes / static_cast<int64_t>(sizeof(float)) / (at_once * row_floats);
  p.rows = std::clamp<int64_t>((fit - reach) / h.stride + 1, 1, h.out);
  p.room_rows = std::min((p.rows - 1) * h.stride + reach, h.in);
  p.slot_floats = at_once * p.room_rows * row_floats;

  p.sums.k = wide[1];
  p.sums.k_chunk = kernels::sum_chunk(p.sums.k);
  p.sums.bounds = take_bounds(p.between);
  p.sums.width = w.in;
  p.sums.x_step = step;
  p.sums.x_row_step = w.in * step;
  p.sums.y_block_step = p.room_rows * row_floats;
  p.sums.y_row_step = row_floats;
  const Ref filters = packed_panels(c, c.known_value(5), {p.sums.k, s.groups, /*transposed=*/true});
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  const auto offsets = channel_offsets(p.sums.k, h.in * w.in, step);
  const auto bias = [&](size_t i) { return c.has_input(i) ? c.in(i) : Ref{}; };
  c.step(run_expanded, p,
         {c.out(0), x.ref, filters, bias(6), weights, bias(2), scratch, c.constant(offsets.get(), offsets)}, nanos);
}

}  // namespace inferkit
