// What the lowerings of Conv share: its shape, how work is cut for threads, and the unit of their costs.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/compile/conv_shape.h"
#include "engine/compile/lowering.h"
#include "engine/ops/activation_attr.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/conv/conv.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {

/// In float64: is it a depthwise convolution, whose few products are not worth the packing of its windows, or are those
/// so large that a block of them would take more than 64 MiB?
inline bool conv_plain_in_double(const ConvShape& s) {
  return (s.channels == 1 && s.filters < 4) || s.window_elements() > (1 << 17);
}

constexpr int64_t kConvParallelProducts = 1 << 19;  // multiply-adds below which one thread does it all
constexpr double kConvParallelNanos = 8'000;        // the same, where products do not tell what a layer takes
constexpr int kMaxConvSlots = 64;

inline kernels::ConvDim conv_dim(const WindowDim& d) {
  return {d.in, d.out, d.kernel, d.stride, d.dilation, d.pad_begin};
}

/// A dimension that changes nothing.
inline bool is_single(const kernels::ConvDim& d) {
  return d.in == 1 && d.out == 1 && d.kernel == 1 && d.pad_begin == 0;
}

/// Where the taps of a window lie, by their remainders of the stride: so many are enough for all of them.
inline int64_t phases_of(const kernels::ConvDim& d) {
  int64_t most = 0;
  for (int64_t i = 0; i < std::min(d.kernel, d.stride); ++i) most = std::max(most, i * d.dilation % d.stride);
  return most + 1;
}

/// Moves the dimensions in over innermost ones of a single pixel, so that packing finds runs to copy.
inline void move_in(kernels::ConvDim (&dim)[3]) {
  for (int moves = 0; moves < 2 && is_single(dim[2]); ++moves) std::rotate(dim, dim + 2, dim + 3);
}

/// The activations that sums end with in registers; others follow in a pass of their own.
inline kernels::Bounds bounds_of(const FusedActivation& act) {
  if (act.op == kernels::Unary::kRelu) return {true, 0, std::numeric_limits<float>::infinity()};
  if (act.op == kernels::Unary::kClip) return {true, act.alpha, act.beta};
  return {};
}

// The ways of float32, which differ in what they copy and in how many lanes idle. Each sum is made in the same order by
// all of them, so that the choice is free. Where a way cannot run a node its cost says why.

/// The cost of a way that spends `vectors` multiply-adds of sixteen lanes, or their time, on each image and group.
inline Cost conv_cost(const ConvShape& s, double vectors) {
  constexpr double kNanosPerVector = 0.5;
  return Cost(static_cast<double>(s.batch) * static_cast<double>(s.groups) * vectors * kNanosPerVector);
}

/// One channel a group: plane by plane, without GEMM.
Cost conv_depthwise_cost(const NodeContext& c);
void lower_conv_depthwise(LowerContext& c);

/// One channel a group: sixteen channels at once, for small images.
Cost conv_channels_cost(const NodeContext& c);
double conv_channels_nanos(const NodeContext& c, bool in_blocks, bool out_blocks);
void lower_conv_channels(LowerContext& c);
/// The same where Layouts has joined a pointwise convolution before it, whose inputs are inputs 4 to 6: with packed
/// weights, for which it takes `nanos`.
void lower_conv_expanded(LowerContext& c, const Ref& weights, double nanos);

/// The filters are A, the packed windows of a block of pixels are B; or the pixels where they lie, if the window is
/// one. In float64, too.
Cost conv_packed_cost(const NodeContext& c);
void lower_conv_packed(LowerContext& c);

/// The filters are A, B is read in place from a padded copy of the image: where packing every window costs more than
/// what is computed for nothing between the rows.
Cost conv_windows_cost(const NodeContext& c);
void lower_conv_windows(LowerContext& c);

/// The pixels of all images are the rows of A, the filters packed B: where an image has few pixels, or a number that
/// fills sixteen lanes badly.
Cost conv_rows_cost(const NodeContext& c);
void lower_conv_rows(LowerContext& c);

/// Sixteen channels of a pixel side by side, and sixteen filters: where an image has few pixels, or the windows are
/// many for its size.
Cost conv_blocks_cost(const NodeContext& c);
double conv_blocks_nanos(const NodeContext& c, bool in_blocks, bool out_blocks);
void lower_conv_blocks(LowerContext& c);

/// In bf16, for models that ask for it: the filters are A, the windows of a block of pixels are B, in pairs.
Cost conv_bf16_cost(const NodeContext& c);
void lower_conv_bf16(LowerContext& c);

}  // namespace inferkit
