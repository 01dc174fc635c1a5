// Conv in bf16 by GEMM with the filters as A and the windows of a block of output pixels as B, in pairs. They are
// packed out of a copy of the block whose pixels lie side by side for every tap; in three dimensions as floats that are
// then turned into pairs. Where a window is one pixel, B is the image as the matrix that it is.
#include "engine/ops/activation_attr.h"
#include "engine/ops/common/conv_split.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"

namespace inferkit {
namespace {

constexpr int64_t kBlockBytes = 384 << 10;  // of pairs: they stay in L2 beside the weights
constexpr int64_t kMinBlock = 64;           // pixels
constexpr int64_t kStrip = 64;              // pixels whose windows are packed as floats at once
constexpr int64_t kCopySlack = 64;          // floats past the copy that kernels touch
/// As in conv_packed.cc, which goes about longer windows in pieces.
constexpr int64_t kLongWindow = 1 << 18;

struct Bf16ConvParams {
  kernels::GemmArgsBf16 gemm;  // m, k, lda, ldc, activation, whether A is of pairs; the rest is filled in
  kernels::ConvDim dim[3];
  bool pointwise, copies;
  SplitCopy copy;
  int slots;
  int64_t batch, groups, channels, in_area, out_area;
  int64_t block, blocks;  // of output pixels
  int64_t parts;          // of the filters, where threads outnumber the blocks
  int64_t pairs_of_slot, slot_elements;
};

/// Pixels [first, first + count) of the image `x` as pairs; `strip` has room for kStrip windows.
void pack_block(const Bf16ConvParams& p, const float* x, int64_t first, int64_t count, uint32_t* pairs, float* strip) {
  if (p.pointwise) return kernels::pack_b(x + first, p.in_area, p.gemm.k, count, pairs);
  constexpr int64_t kColumns = kernels::kPanelColumns;
  kernels::PackPixelsArgs pack;
  pack.x = x;
  pack.to = strip;
  pack.channels = p.channels;
  for (int d = 0; d < 3; ++d) pack.dim[d] = p.dim[d];
  const int64_t k = p.gemm.k, panel_pairs = (k + 1) / 2 * kColumns;
  for (int64_t at = 0; at < count; at += kStrip) {
    pack.first = first + at;
    pack.count = std::min(kStrip, count - at);
    kernels::conv_kernels().pack_pixels(pack);
    for (int64_t panel = 0; panel * kColumns < pack.count; ++panel) {
      kernels::gemm_bf16_kernels().pack_b(strip + panel * k * kColumns, kColumns, k, kColumns,
                                          pairs + (at / kColumns + panel) * panel_pairs);
    }
  }
}

void conv_task(const Bf16ConvParams& p, std::byte* const* io, int64_t task, int64_t parts, uint32_t* scratch) {
  const int64_t part = task % parts, block = task / parts % p.blocks, image = task / parts / p.blocks;  // and group
  const int64_t group = image % p.groups, filters = p.gemm.m;
  const float* x = reinterpret_cast<const float*>(io[1]) + image * p.channels * p.in_area;
  auto* const room = reinterpret_cast<float*>(scratch + p.pairs_of_slot);
  int64_t pixel = block * p.block, count = std::min(p.block, p.out_area - pixel);
  if (p.copies) {
    const CopiedBlock copied = copy_block(p.copy, x, block, room);
    pixel = copied.pixel;
    count = copied.rows * copied.width;
    kernels::gemm_bf16_kernels().pack_windows(
        {room, reinterpret_cast<const int32_t*>(io[5]), p.gemm.k, count, copied.width, p.copy.split.pitch, scratch});
  } else {
    pack_block(p, x, pixel, count, scratch, room);
  }
  const int64_t row = filters * part / parts;
  kernels::GemmArgsBf16 g = p.gemm;
  g.m = filters * (part + 1) / parts - row;
  g.n = count;
  g.a = reinterpret_cast<const float*>(io[2]) + (group * filters + row) * g.lda;
  g.c = reinterpret_cast<float*>(io[0]) + (image * filters + row) * p.out_area + pixel;
  if (io[3]) {
    g.bias = reinterpret_cast<const float*>(io[3]) + group * filters + row;
    g.bias_kind = kernels::BiasKind::kPerRow;
  }
  kernels::use_packed_b(g, scratch);
  kernels::gemm_bf16(g);
}

/// io: y, x, weights, bias, scratch, offsets of the taps or null.
void run_conv(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const Bf16ConvParams*>(params);
  const bool alone = !context.pool || context.max_threads < 2;
  const int64_t parts = alone ? 1 : p.parts;
  for_tasks(context, p.batch * p.groups * p.blocks * parts, p.slots, [&](int64_t task, int64_t slot) {
    conv_task(p, io, task, parts, reinterpret_cast<uint32_t*>(io[4]) + slot * p.slot_elements);
  });
}

/// The filters as rows of pairs, if they are constant.
Ref packed_filters(LowerContext& c, const ConvShape& s) {
  const int64_t k = s.window_elements(), rows = s.groups * s.filters;
  const Tensor& filters = c.known_value(1);
  const Packing packing{cat("filters-", rows, "-", k), DType::kBF16, rows * ((k + 1) / 2) * 2, {}};
  return c.packed({&filters}, packing,
                  [&](void* to) { kernels::pack_a_bf16(filters.as<float>(), k, rows, k, static_cast<uint32_t*>(to)); });
}

}  // namespace

Cost conv_bf16_cost(const NodeContext& c) {
  const ConvShape s = conv_shape(c);
  if (s.channels == 1) return Cost::cannot("one channel a group, whose sums are too short");
  if (s.window_elements() > kLongWindow) return Cost::cannot("windows of more than 2^18 elements");
  const int64_t panels = (s.window.out_elements() + kernels::kPanelColumns - 1) / kernels::kPanelColumns;
  return conv_cost(s, static_cast<double>(panels) * static_cast<double>(s.window_elements()) *
                          (static_cast<double>(s.filters) / 2 + (s.pointwise() ? 4 : 14)));
}

void lower_conv_bf16(LowerContext& c) {
  constexpr int64_t kColumns = kernels::kPanelColumns;
  const ConvShape s = conv_shape(c);
  const FusedActivation act = fused_activation(c);
  Bf16ConvParams p{};
  p.gemm.m = s.filters;
  p.gemm.k = s.window_elements();
  p.gemm.a_is_pairs = c.input(1).constant != nullptr;
  p.gemm.lda = p.gemm.a_is_pairs ? (p.gemm.k + 1) / 2 : p.gemm.k;
  p.gemm.ldc = p.out_area = s.window.out_elements();
  p.gemm.act = act.op;
  p.gemm.act_alpha = act.alpha;
  p.gemm.act_beta = act.beta;
  p.gemm.k_chunk = kernels::chunk_of_pairs(kernels::sum_chunk(p.gemm.k));
  p.batch = s.batch;
  p.groups = s.groups;
  p.channels = s.channels;
  p.in_area = s.window.in_elements();
  for (size_t d = 0; d < 3; ++d) p.dim[d] = conv_dim(s.window.dim[d]);
  move_in(p.dim);
  p.pointwise = s.pointwise();
  const auto round = [](int64_t n) { return (n + kColumns - 1) / kColumns * kColumns; };
  const double products = multiplied(s.batch, s.groups, s.filters, p.gemm.k, p.out_area);
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  const int64_t pairs = (p.gemm.k + 1) / 2;
  const int64_t fit = kBlockBytes / (static_cast<int64_t>(sizeof(uint32_t)) * std::max<int64_t>(1, pairs)) / 16 * 16;
  p.block = std::min(round(p.out_area), std::max(kMinBlock, fit));
  const int64_t images = s.batch * s.groups;
  if (p.slots > 1 && images < 2 * p.slots) {  // two tasks per thread at least, where blocks stay worth their weights
    const int64_t want = (2 * p.slots + images - 1) / images;
    p.block = std::min(p.block, std::max(kMinBlock, round((p.out_area + want - 1) / want)));
  }
  p.blocks = (p.out_area + p.block - 1) / p.block;
  const ConvSplit split = split_of(s);
  const int64_t width = split.by_columns() ? 1 : split.w.out;
  // A block of the copy is whole rows: of wide images even one would be far more than stays in L2.
  if (split.possible && width <= 2 * std::max(kMinBlock, fit)) {
    p.copy = split_copy(s, split, std::clamp<int64_t>(p.block / width, 1, split.units()));
    p.copies = static_cast<double>(p.copy.planes()) * static_cast<double>(p.copy.split.plane) < ConvSplit::kMostFloats;
  }
  if (p.copies) {
    p.block = p.copy.block * width;
    p.blocks = p.copy.blocks;
  }
  p.parts = 1;
  if (images * p.blocks < p.slots)
    p.parts = std::max<int64_t>(1, std::min<int64_t>(p.slots / (images * p.blocks), s.filters / 24));
  p.pairs_of_slot = round(p.block) * pairs;
  p.slot_elements = p.pairs_of_slot;
  Ref offsets{};
  if (p.copies) {
    p.slot_elements += p.copy.planes() * p.copy.split.plane + kCopySlack;
    const auto table = tap_offsets(s, split, p.copy.split.pitch, p.copy.split.plane);
    offsets = c.constant(table.get(), table);
  } else if (!p.pointwise) {
    p.slot_elements += kStrip * p.gemm.k + 16;
  }
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_elements * p.slots) * sizeof(uint32_t));
  const Ref filters = p.gemm.a_is_pairs ? packed_filters(c, s) : c.in(1);
  c.step(run_conv, p, {c.out(0), c.in(0), filters, c.has_input(2) ? c.in(2) : Ref{}, scratch, offsets},
         products / kernels::gemm_bf16_kernels().products_per_nano +
             multiplied(images, p.out_area, p.gemm.k) * (p.pointwise ? 0.1 : 0.25));
}

}  // namespace inferkit
