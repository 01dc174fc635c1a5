// Conv in float32 over blocks of sixteen channels: the image becomes pixels of sixteen floats, with its padding, and
// the lanes are filters. Nothing is copied once a tap, and no lane idles where an image has few pixels. Planes of few
// channels stay planes: a value is one operand, wherever it lies.
#include <cstring>
#include <limits>

#include "engine/compile/layouts.h"
#include "engine/ops/common/conv.h"
#include "engine/ops/common/packed_panels.h"
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/pool/pool.h"
#include "platform/isa.h"

namespace inferkit {
namespace {

using kernels::ConvDim;

constexpr int64_t kLanes = 16;
constexpr int64_t kMostTaps = 1 << 14;            // of the table of offsets, which a plan holds
constexpr int64_t kBandBytes = 512 << 10;         // of the copy: it stays in L2 beside the filters
constexpr int64_t kShortRow = 6, kLongRow = 128;  // pixels; rows that short are one, where nothing lies between them
constexpr int64_t kSumsBytes = 64 << 10;          // of sums that are written before they are turned into planes
constexpr int64_t kFiltersAtOnce = 6;             // blocks of them: whole tiles of two and of three
// Planes of a copy, by how columns are split; more are as fast to turn, and then to read.
constexpr int64_t kMostCopied = 12, kMostGathered = 4;
constexpr int64_t kSlack = 15;  // floats that copying a plane writes behind it
constexpr int64_t kMaxFloats = std::numeric_limits<int32_t>::max() / 2;
constexpr int64_t kTasksPerSlot = 4;        // so that a thread that comes late does not hold up the rest
constexpr int64_t kTaskProducts = 1 << 17;  // fewer are not worth a task: some 3 us
// As measured, in the time of sixteen lanes' multiply-add: moving sixteen floats between planes and pixels, at a
// stride, and between pixels.
constexpr double kMoving = 9, kMovingAtStride = 20, kCopying = 5;
// The same for sixteen floats of planes that stay planes, and at strides that are gathered.
constexpr double kSplitting = 10, kGathering = 60;
constexpr double kSpeed = 0.9;  // of a multiply-add beside one of the other ways
constexpr double kAlone = 1.3;  // and of one on AVX-512 where there is only one block of filters, and several taps

int64_t blocks_of(int64_t channels) { return (channels + kLanes - 1) / kLanes; }

/// How the image is copied: rows and columns split by stride, so that neighbours of the output are neighbours.
struct Copy {
  ConvDim h, w;
  int64_t h_phases, w_phases, reach, width;  // reach: rows of a phase past the output's
  bool planes;                               // it has those, else pixels of sixteen floats
  int64_t parts, step, slack;                // planes, or blocks of channels; floats from a pixel to the next
  bool possible;
  /// Pixels of a phase of a part, for so many rows of the output; and floats of the part.
  int64_t plane(int64_t rows) const { return (rows + reach) * width + slack; }
  int64_t part_floats(int64_t rows) const { return h_phases * w_phases * plane(rows) * step; }
};

/// Without `keeps_rows`, short rows may be taken for one.
Copy copy_of(const ConvShape& s, bool in_blocks, bool keeps_rows = false) {
  ConvDim dim[3];
  for (size_t d = 0; d < 3; ++d) dim[d] = conv_dim(s.window.dim[d]);
  move_in(dim);
  Copy copy{};
  if (s.window_elements() == 0 || s.window_elements() > kMostTaps) return copy;
  if (!keeps_rows && s.pointwise() && dim[2].out <= kShortRow && is_single(dim[0]) &&
      dim[1].out * dim[2].out <= kLongRow) {
    dim[2].in = dim[2].out = dim[1].out * dim[2].out;
    dim[1] = {};
  }
  copy.h = dim[1];
  copy.w = dim[2];
  copy.h_phases = phases_of(copy.h);
  copy.w_phases = phases_of(copy.w);
  copy.reach = (copy.h.kernel - 1) * copy.h.dilation / copy.h.stride;
  copy.width = copy.w.out + (copy.w.kernel - 1) * copy.w.dilation / copy.w.stride;
  const int64_t most = s.pointwise() ? kMostPlanes : copy.w.stride <= 2 ? kMostCopied : kMostGathered;
  copy.planes = !in_blocks && s.channels <= most && copy.h.out > 1;
  copy.parts = copy.planes ? s.channels : blocks_of(s.channels);
  copy.step = copy.planes ? 1 : kLanes;
  copy.slack = copy.planes && !s.pointwise() ? kSlack : 0;
  const double floats = static_cast<double>(copy.parts) * static_cast<double>(copy.h_phases) *
                        static_cast<double>(copy.w_phases) * static_cast<double>(copy.h.out + copy.reach + copy.slack) *
                        static_cast<double>(copy.width) * static_cast<double>(copy.step);
  copy.possible = is_single(dim[0]) && floats < kMaxFloats;
  return copy;
}

/// A pool that is one step with the convolution; see layouts.cc.
struct Pooling {
  kernels::PoolArgs args;  // of one block of channels; x and y are filled in
  bool pools, average;
};

Pooling pooling_of(const NodeContext& c, const Copy& copy) {
  Pooling out{};
  const std::string op = c.attr_string("pool", "");
  if (op.empty()) return out;
  out.pools = true;
  out.average = op == "AveragePool";
  out.args.include_pad = c.attr_int("pool_include_pad", 0) != 0;
  const auto dim = [&](const char* name, int64_t in, int64_t of_output) {
    const std::vector<int64_t> v = c.attr_ints(name);
    return kernels::PoolDim{in, of_output, v[0], v[1], v[2], v[3], v[4]};
  };
  out.args.h = dim("pool_rows", copy.h.out, c.output(0).shape[2]);
  out.args.w = dim("pool_columns", copy.w.out, c.output(0).shape[3]);
  return out;
}

/// Rows of the convolution that some rows of the step's output are made of, which are these where nothing is pooled.
struct Rows {
  int64_t from, to, top;  // top: where the first window begins, with its padding
};
Rows rows_for(const Pooling& p, int64_t row, int64_t end) {
  if (!p.pools) return {row, end, row};
  const kernels::PoolDim& h = p.args.h;
  const int64_t top = row * h.stride - h.pad_begin, from = std::clamp<int64_t>(top, 0, h.in);
  return {from, std::clamp(top + (end - row - 1) * h.stride + (h.kernel - 1) * h.dilation + 1, from, h.in), top};
}
/// The most of them that `rows` rows are made of, and of how many rows that many are enough for.
int64_t most_rows_for(const Pooling& p, int64_t rows) {
  const kernels::PoolDim& h = p.args.h;
  return p.pools ? std::min(h.in, (rows - 1) * h.stride + (h.kernel - 1) * h.dilation + 1) : rows;
}
int64_t rows_of(const Pooling& p, int64_t rows) {
  const kernels::PoolDim& h = p.args.h;
  return p.pools ? std::clamp<int64_t>((rows - (h.kernel - 1) * h.dilation - 1) / h.stride + 1, 1, h.out) : rows;
}

struct BlocksParams {
  kernels::ConvBlocksArgs sums;
  kernels::BlocksCopyArgs copy;
  Pooling pooling;
  bool planes;    // the copy has those
  int64_t parts;  // of an image: planes, or blocks of channels
  kernels::Unary act;
  float act_alpha, act_beta;
  int slots;
  int64_t batch, channels, filters, in_area, out_area;
  int64_t rows;                     // of the output
  bool copies;                      // the image is not read where it lies
  bool out_blocks;                  // the output is written in blocks
  bool shared;                      // an image is one band, in parts for threads; else a band is a task
  int64_t band, bands;              // rows of the output whose part of the image is copied at once
  int64_t filter_parts, row_parts;  // where it is shared
  int64_t reach;                    // of a band's rows, past those of the output
  int64_t chunk_rows;               // that are summed before they are turned into planes, or pooled
  int64_t room_rows;                // that as many rows of the output are made of
  int64_t image_floats;             // of the copy
  int64_t sums_floats;              // of a slot's sums
};

const float* floats(std::byte* const* io, int i) { return reinterpret_cast<const float*>(io[i]); }

/// Part `part` of the channels, what `rows` rows of the output from `row` on read.
void copy_part(const BlocksParams& p, const float* x, int64_t part, int64_t row, int64_t rows, float* to) {
  kernels::BlocksCopyArgs copy = p.copy;
  const int64_t place = part * copy.h_phases * copy.w_phases * copy.plane;
  copy.h.pad_begin -= row * copy.h.stride;
  copy.rows = rows + p.reach;
  if (p.planes) {
    kernels::SplitPlaneArgs split{x + part * p.in_area, to + place, copy.h, copy.w, copy.h_phases, copy.w_phases};
    split.rows = copy.rows;
    split.width = split.pitch = copy.width;
    split.plane = copy.plane;
    return kernels::conv_kernels().split_plane(split);
  }
  copy.channels = std::min(kLanes, p.channels - part * kLanes);
  copy.x = x + part * kLanes * p.in_area;
  copy.to = to + place * kLanes;
  kernels::conv_kernels().blocks_copy(copy);
}

/// Some blocks of filters at some rows of the output.
struct Part {
  int64_t image, block, block_end, row, row_end;
  const float* x;  // what the rows read, from the first of them on
};

/// Neighbouring blocks of filters, of which no sum is asked for yet.
kernels::ConvBlocksArgs filters_from(const BlocksParams& p, std::byte* const* io, int64_t first, int64_t end,
                                     float (&bias)[kFiltersAtOnce * kLanes]) {
  kernels::ConvBlocksArgs a = p.sums;
  a.y_row_step = a.width * kLanes;
  a.filter_blocks = std::min(kFiltersAtOnce, end - first);
  a.weights = floats(io, 2) + first * kLanes * a.k;
  if (io[3]) {
    std::fill_n(bias, a.filter_blocks * kLanes, 0.0f);
    std::copy_n(floats(io, 3) + first * kLanes, std::min(a.filter_blocks * kLanes, p.filters - first * kLanes), bias);
    a.bias = bias;
  }
  return a;
}

/// Rows of sums, and their windows while they are in the cache.
void pooled_task(const BlocksParams& p, std::byte* const* io, const Part& part, float* room) {
  const auto& kernels = kernels::conv_kernels();
  const auto pool =
      p.pooling.average ? kernels::pool_kernels().average_of_blocks : kernels::pool_kernels().max_of_blocks;
  const int64_t image_blocks = blocks_of(p.filters), row_floats = p.sums.width * kLanes;
  const int64_t row_of_output = p.pooling.args.w.out * kLanes, block_floats = p.room_rows * row_floats;
  const int64_t before = rows_for(p.pooling, part.row, part.row_end).from;
  for (int64_t first = part.block; first < part.block_end; first += kFiltersAtOnce) {
    alignas(64) float bias[kFiltersAtOnce * kLanes];
    kernels::ConvBlocksArgs a = filters_from(p, io, first, part.block_end, bias);
    a.y_block_step = block_floats;
    int64_t have = before, have_end = before;  // rows of sums that are in the room
    for (int64_t r = part.row; r < part.row_end; r += p.chunk_rows) {
      if (!RunControl::goes_on()) return;
      const int64_t end = std::min(r + p.chunk_rows, part.row_end);
      const Rows sums = rows_for(p.pooling, r, end);
      const int64_t kept = std::max<int64_t>(0, have_end - sums.from);
      for (int64_t b = 0; kept > 0 && sums.from > have && b < a.filter_blocks; ++b) {
        float* const rows = room + b * block_floats;
        std::memmove(rows, rows + (sums.from - have) * row_floats,
                     static_cast<size_t>(kept * row_floats) * sizeof(float));
      }
      have = sums.from;
      have_end = std::max(sums.to, sums.from + kept);
      a.rows = have_end - have - kept;
      a.x = part.x + (have + kept - before) * a.x_row_step;
      a.y = room + kept * row_floats;
      if (a.rows > 0) kernels.blocks(a);
      for (int64_t b = 0; b < a.filter_blocks; ++b) {
        float* const rows = room + b * block_floats;
        if (float* const fresh = rows + kept * row_floats; p.act != kernels::Unary::kIdentity && a.rows > 0)
          kernels::unary_fn(p.act)(fresh, fresh, a.rows * row_floats, p.act_alpha, p.act_beta);
        kernels::PoolArgs windows = p.pooling.args;
        const int64_t block = part.image * image_blocks + first + b;
        windows.x = rows;
        windows.y = reinterpret_cast<float*>(io[0]) + (block * p.rows + r) * row_of_output;
        windows.h.in = have_end - have;
        windows.h.out = end - r;
        windows.h.pad_begin = have - sums.top;
        pool(windows, 0, end - r);
      }
    }
  }
}

void sums_task(const BlocksParams& p, std::byte* const* io, const Part& part, float* room) {
  if (p.pooling.pools) return pooled_task(p, io, part, room);
  const auto& kernels = kernels::conv_kernels();
  const int64_t out_floats = p.filters * p.out_area;
  float* const y = reinterpret_cast<float*>(io[0]) + part.image * out_floats;
  const float* residual = io[6] ? floats(io, 6) + part.image * out_floats : nullptr;
  const int64_t width = p.sums.width;
  for (int64_t first = part.block; first < part.block_end; first += kFiltersAtOnce) {
    alignas(64) float bias[kFiltersAtOnce * kLanes];
    kernels::ConvBlocksArgs a = filters_from(p, io, first, part.block_end, bias);
    for (int64_t r = part.row; r < part.row_end; r += p.chunk_rows) {
      if (!RunControl::goes_on()) return;
      a.rows = std::min(p.chunk_rows, part.row_end - r);
      a.x = part.x + (r - part.row) * a.x_row_step;
      a.y = p.out_blocks ? y + (first * p.out_area + r * width) * kLanes : room;
      if (residual) a.residual = residual + (first * p.out_area + r * width) * kLanes;
      a.y_block_step = p.out_blocks ? p.out_area * kLanes : a.rows * a.y_row_step;
      kernels.blocks(a);
      for (int64_t b = 0; b < a.filter_blocks; ++b) {
        const int64_t filter = (first + b) * kLanes;
        float* const sums = a.y + b * a.y_block_step;
        if (p.act != kernels::Unary::kIdentity)
          kernels::unary_fn(p.act)(sums, sums, a.rows * a.y_row_step, p.act_alpha, p.act_beta);
        if (p.out_blocks) continue;
        kernels.blocks_to_planes({sums, a.rows * width, std::min(kLanes, p.filters - filter),
                                  y + filter * p.out_area + r * width, p.out_area});
      }
    }
  }
}

/// io: y, x, packed weights, bias, scratch, offsets, what is added.
void run_blocks(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const BlocksParams*>(params);
  const int64_t filter_blocks = blocks_of(p.filters), rows = p.rows;
  float* const scratch = reinterpret_cast<float*>(io[4]);
  BlocksParams q = p;
  q.sums.offsets = reinterpret_cast<const int32_t*>(io[5]);
  const auto image_x = [&](int64_t image) { return floats(io, 1) + image * p.channels * p.in_area; };
  if (!p.shared) {
    for_tasks(context, p.batch * p.bands, p.slots, [&](int64_t task, int64_t slot) {
      const int64_t image = task / p.bands, row = task % p.bands * p.band, end = std::min(rows, row + p.band);
      const Rows sums = rows_for(p.pooling, row, end);
      float* const copy = scratch + slot * (p.image_floats + p.sums_floats);
      const float* x = image_x(image) + (p.copies ? 0 : sums.from * q.sums.x_row_step);
      if (p.copies) {
        for (int64_t i = 0; i < p.parts; ++i) copy_part(q, x, i, sums.from, sums.to - sums.from, copy);
        x = copy;
      }
      sums_task(q, io, {image, 0, filter_blocks, row, end, x}, copy + p.image_floats);
    });
    return;
  }
  for (int64_t image = 0; image < p.batch; ++image) {
    const float* x = image_x(image);
    if (p.copies) {
      for_tasks(context, p.parts, p.slots, [&](int64_t i, int64_t) { copy_part(q, x, i, 0, p.copy.h.out, scratch); });
      x = scratch;
    }
    // Neighbouring tasks have the same filters: what a thread writes then lies together, and is often what it reads in
    // the next step, where that goes channel by channel.
    for_tasks(context, p.filter_parts * p.row_parts, p.slots, [&](int64_t task, int64_t slot) {
      const int64_t filters = task / p.row_parts, piece = task % p.row_parts, row = rows * piece / p.row_parts;
      const int64_t end = rows * (piece + 1) / p.row_parts, from = rows_for(p.pooling, row, end).from;
      const Part part{image,
                      filter_blocks * filters / p.filter_parts,
                      filter_blocks * (filters + 1) / p.filter_parts,
                      row,
                      end,
                      x + from * q.sums.x_row_step};
      sums_task(q, io, part, scratch + p.image_floats + slot * p.sums_floats);
    });
  }
}

/// Where each tap of each channel lies in the copy.
std::shared_ptr<const void> tap_offsets(const ConvShape& s, const Copy& copy, int64_t plane) {
  void* data = nullptr;
  const Tensor offsets = make_tensor(DType::kI32, {s.window_elements()}, &data);
  auto* to = static_cast<int32_t*>(data);
  const ConvDim &h = copy.h, &w = copy.w;
  for (int64_t c = 0; c < s.channels; ++c) {
    for (int64_t i = 0; i < h.kernel; ++i) {
      for (int64_t j = 0; j < w.kernel; ++j) {
        const int64_t y = i * h.dilation, x = j * w.dilation;
        const int64_t phase = (c / copy.step * copy.h_phases + y % h.stride) * copy.w_phases + x % w.stride;
        const int64_t pixel = phase * plane + y / h.stride * copy.width + x / w.stride;
        *to++ = static_cast<int32_t>(pixel * copy.step + c % copy.step);
      }
    }
  }
  return {offsets.owner, offsets.data};
}

}  // namespace

double conv_blocks_nanos(const NodeContext& c, bool in_blocks, bool out_blocks) {
  const ConvShape s = conv_shape(c);
  const Copy copy = copy_of(s, in_blocks);
  const auto pixels = static_cast<double>(s.window.out_elements());
  const auto parts = static_cast<double>(copy.parts), filters = static_cast<double>(blocks_of(s.filters));
  const int64_t stride = copy.w.stride;
  const double moving = (in_blocks || copy.planes) && s.pointwise() ? 0
                        : in_blocks                                 ? kCopying
                        : copy.planes                               ? stride <= 2 ? kSplitting : kGathering
                        : stride == 1                               ? kMoving
                                                                    : kMovingAtStride;
  const bool alone = filters == 1 && !s.pointwise() && active_isa() == Isa::kAvx512;
  const double speed = alone ? kSpeed * kAlone : kSpeed;
  return conv_cost(s, pixels * filters * static_cast<double>(s.window_elements()) * speed +
                          parts * static_cast<double>(copy.part_floats(copy.h.out)) / kLanes * moving +
                          (out_blocks ? 0 : pixels * filters * kMoving))
      .nanos();
}

Cost conv_blocks_cost(const NodeContext& c) {
  const ConvShape s = conv_shape(c);
  if (!c.input(1).constant) return Cost::cannot("the weights are not constant");
  if (s.groups != 1) return Cost::cannot("it has several groups");
  if (!copy_of(s, false).possible || !copy_of(s, true).possible)
    return Cost::cannot("three dimensions, or too many taps or pixels");
  return Cost(conv_blocks_nanos(c, false, false));
}

void lower_conv_blocks(LowerContext& c) {
  const ConvShape s = conv_shape(c);
  const Lying x = c.lying(0);
  const bool pools = c.has_attr("pool");
  const Copy copy = copy_of(s, x.layout == Layout::kBlocks, pools);
  const FusedActivation act = fused_activation(c);
  BlocksParams p{};
  p.pooling = pooling_of(c, copy);
  p.rows = pools ? p.pooling.args.h.out : copy.h.out;
  p.sums.k = s.window_elements();
  p.sums.k_chunk = kernels::sum_chunk(p.sums.k);
  p.sums.bounds = bounds_of(act);
  p.sums.width = copy.w.out;
  p.sums.x_step = copy.step;
  p.sums.x_row_step = copy.width * copy.step;
  p.act = p.sums.bounds.bounded ? kernels::Unary::kIdentity : act.op;
  p.act_alpha = act.alpha;
  p.act_beta = act.beta;
  p.copy.h = copy.h;
  p.copy.w = copy.w;
  p.copy.h_phases = copy.h_phases;
  p.copy.w_phases = copy.w_phases;
  p.copy.width = copy.width;
  p.batch = s.batch;
  p.channels = s.channels;
  p.filters = s.filters;
  p.in_area = s.window.in_elements();
  p.out_area = s.window.out_elements();
  p.copy.pixels = x.layout == Layout::kBlocks;
  p.planes = copy.planes;
  p.parts = copy.parts;
  p.copies = !s.pointwise() || !(p.copy.pixels || p.planes);
  p.out_blocks = c.wanted(0) == Layout::kBlocks;

  const int64_t filter_blocks = blocks_of(s.filters);
  const double each = multiplied(s.filters, p.sums.k, p.out_area);  // multiply-adds of an image
  p.slots = static_cast<double>(s.batch) * each < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  // Bands whose copies stay in the cache, where they are enough for all threads.
  const int64_t fit = kBandBytes / static_cast<int64_t>(sizeof(float)) /
                      (p.parts * copy.h_phases * copy.w_phases * copy.width * copy.step);
  const int64_t want = static_cast<int64_t>(std::clamp(each / kTaskProducts, 1.0, double(p.slots * kTasksPerSlot)));
  p.reach = copy.reach;
  p.band = copy.h.out;
  if (p.copies) {
    const int64_t least = std::min<int64_t>(copy.h.out, copy.reach + 1);
    p.band = std::clamp<int64_t>(fit - copy.reach, least, copy.h.out);
    // A band of planes is copied so fast that each thread has bands of its own, and none waits for another.
    if (p.planes && p.slots > 1) p.band = std::clamp<int64_t>(copy.h.out * s.batch / want, least, p.band);
  }
  p.band = rows_of(p.pooling, p.band);
  p.bands = (p.rows + p.band - 1) / p.band;
  p.shared = p.slots > 1 && s.batch * p.bands < 2 * p.slots;
  if (p.shared) p.bands = 1;
  p.band = (p.rows + p.bands - 1) / p.bands;
  const int64_t copied = p.shared || !p.copies ? copy.h.out : most_rows_for(p.pooling, p.band);
  p.copy.plane = copy.plane(copied);
  p.image_floats = p.copies ? (p.parts * copy.part_floats(copied) + kLanes - 1) / kLanes * kLanes : 0;
  p.filter_parts = std::clamp<int64_t>(filter_blocks / 2, 1, want);
  p.row_parts = std::clamp<int64_t>((want + p.filter_parts - 1) / p.filter_parts, 1, p.rows);
  const int64_t row_floats = std::min(kFiltersAtOnce, filter_blocks) * copy.w.out * kLanes;
  p.chunk_rows = std::clamp<int64_t>(kSumsBytes / static_cast<int64_t>(sizeof(float)) / row_floats, 1, copy.h.out);
  if (pools) p.chunk_rows = rows_of(p.pooling, p.chunk_rows);
  p.room_rows = most_rows_for(p.pooling, p.chunk_rows);
  p.sums_floats = pools || !p.out_blocks ? p.room_rows * row_floats : 0;
  const int64_t scratch_floats =
      (p.shared ? 1 : p.slots) * p.image_floats + static_cast<int64_t>(p.slots) * p.sums_floats;
  const kernels::PoolArgs& windows = p.pooling.args;
  const double pooling_nanos = pool_blocks_nanos(c.output(0).shape, windows.h.kernel * windows.w.kernel);
  const Ref weights = packed_panels(c, c.known_value(1), {p.sums.k, s.filters, /*transposed=*/true});
  const Ref scratch = scratch_floats ? c.scratch(static_cast<size_t>(scratch_floats) * sizeof(float)) : Ref{};
  const auto offsets = tap_offsets(s, copy, p.copy.plane);
  c.step(run_blocks, p,
         {c.out(0), x.ref, weights, c.has_input(2) ? c.in(2) : Ref{}, scratch, c.constant(offsets.get(), offsets),
          c.lying(3).ref},
         conv_blocks_nanos(c, p.copy.pixels, p.out_blocks) + (pools ? pooling_nanos : 0));
}

}  // namespace inferkit
