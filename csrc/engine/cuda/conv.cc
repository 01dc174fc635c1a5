// Convolutions, with the bits of engine/ops/conv.cc: the terms of a sum are in the order of the weights, cut into the
// chunks of kernels/summation.h by their number alone.
#include "kernels/cpu/conv/conv.h"

#include "engine/compile/conv_shape.h"
#include "engine/cuda/functions.h"
#include "engine/cuda/halves.h"
#include "engine/cuda/launch.h"
#include "engine/cuda/window.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

using device::ConvParams;
using device::HalfConvParams;

constexpr int64_t kFewFilters = 4;  // a group: a tile would be mostly empty

kernels::ConvDim on_cpu(const WindowDim& d) { return {d.in, d.out, d.kernel, d.stride, d.dilation, d.pad_begin}; }

Cost conv_cost(const NodeContext& c) {
  if (!fused_function(c)) return Cost::cannot("CUDA has not the activation that is fused into it");
  const ConvShape s = conv_shape(c);
  const Window& w = s.window;
  const WindowDim &d0 = w.dim[0], &d1 = w.dim[1];
  const int64_t beyond = ((d0.kernel - 1) * d0.dilation + (d1.kernel - 1) * d1.dilation + 2) * d1.in * w.dim[2].in;
  if (!fits(w) || !small(beyond + s.channels * w.in_elements()) || !small(s.window_elements()) ||
      !small(s.batch * w.out_elements()) || !small(s.groups * s.filters)) {
    return Cost::cannot("an image, a window or the pixels of a batch are more than 2^31 elements");
  }
  return Cost(0);
}

/// On tensor cores. Like all that chooses a precision it follows from the layer alone.
Cost half_conv_cost(const NodeContext& c) {
  const Cost cost = conv_cost(c);
  if (!cost.possible()) return cost;
  const ConvShape s = conv_shape(c);
  if (s.channels == 1) return Cost::cannot("one channel a group, whose sums are too short");
  if (s.filters <= kFewFilters) return Cost::cannot("a group has few filters");
  return cost;
}

int64_t pixels_of(const ConvParams& p) { return p.batch * p.axes[0].out * p.axes[1].out * p.axes[2].out; }
int64_t terms_of(const ConvParams& p) {
  return int64_t{p.channels} * p.axes[0].kernel * p.axes[1].kernel * p.axes[2].kernel;
}
int64_t chunks_of(const ConvParams& p) { return (terms_of(p) - 1) / p.chunk + 1; }

bool makes_tiles(const ConvParams& p) { return p.filters > kFewFilters && !device::suits_depthwise(p); }

template <class Cut>
Blocks tiles_of(const ConvParams& p) {
  return {(p.filters + Cut::kRows - 1) / Cut::kRows, (pixels_of(p) + Cut::kColumns - 1) / Cut::kColumns, p.groups};
}
/// Are there enough tiles of this size to fill a large device, and filters to fill a tile?
template <class Cut>
bool suits(const ConvParams& p) {
  return p.filters > Cut::kRows / 2 && tiles_of<Cut>(p).count() >= kManyBlocks;
}

int64_t elements_of(const ConvParams& p) { return pixels_of(p) * p.groups * p.filters; }

/// Little work is spread over more blocks, one for each chunk of a tile, as long as the chunks' sums, which go through
/// memory, are few enough to stay in a large device's L2.
constexpr int64_t kMostParts = int64_t{16} << 20;  // floats
int64_t floats_of_parts(const ConvParams& p) {
  const int64_t floats = chunks_of(p) * elements_of(p);
  const bool is_little = !suits<device::ConvWide>(p) && tiles_of<device::ConvTiled>(p).count() < kManyBlocks;
  return is_little && chunks_of(p) > 1 && floats <= kMostParts ? floats : 0;
}
Ref parts_of(LowerContext& c, const ConvParams& p) {
  const int64_t floats = floats_of_parts(p);
  return floats > 0 ? c.scratch(static_cast<size_t>(floats) * sizeof(float)) : Ref{};
}

/// Launches the kernel for tiles of a size that suits; `of` is in `params`.
template <class Wide, class Tiled, class Params>
void launch_tiles(const ExecContext& context, Kernel wide, Kernel tiled, const ConvParams& of, const Params& params) {
  const auto start = [&]<class Cut>(Cut, Kernel kernel) {
    Blocks blocks = tiles_of<Cut>(of);
    if (of.parts) blocks.z *= chunks_of(of);
    launch(context, kernel, blocks, Cut::kThreads, device::kConvShared<Cut>, params);
  };
  if (suits<Wide>(of)) {
    start(Wide{}, wide);
  } else {
    start(Tiled{}, tiled);
  }
  if (of.parts) launch_elements(context, Kernel::conv_add, elements_of(of), of);
}

void launch_depthwise(const ExecContext& context, const ConvParams& p) {
  constexpr int64_t kThreads = 128, kMostBlocks = 8192;
  const int64_t columns = (p.axes[1].out + device::kColumnPixels - 1) / device::kColumnPixels * p.axes[2].out;
  const int64_t threads = p.batch * p.groups * p.filters * columns;
  launch(context, Kernel::conv_depthwise, {std::min((threads + kThreads - 1) / kThreads, kMostBlocks)}, kThreads, 0, p);
}

/// io: y, x, weights, bias, parts.
void take_operands(ConvParams& p, std::byte* const* io) {
  p.y = at<float>(io, 0);
  p.x = at<float>(io, 1);
  p.w = at<float>(io, 2);
  p.bias = at<float>(io, 3);
  p.parts = at<float>(io, 4);
  p.by_fours = p.by_fours && reinterpret_cast<uintptr_t>(p.x) % 16 == 0;
}

void run_conv(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const ConvParams*>(params);
  take_operands(p, io);
  if (elements_of(p) == 0) return;
  if (device::suits_depthwise(p)) return launch_depthwise(context, p);
  if (p.filters <= kFewFilters) return launch_elements(context, Kernel::conv_direct, elements_of(p), p);
  launch_tiles<device::ConvWide, device::ConvTiled>(context, Kernel::conv_wide, Kernel::conv_tiled, p, p);
}

/// The same, or pairs for weights.
template <Precision kIn>
void run_half_conv(const void* params, std::byte* const* io, const ExecContext& context) {
  auto h = *static_cast<const HalfConvParams*>(params);
  take_operands(h.of, io);
  if (h.pairs_row != 0) h.pairs = at<uint32_t>(io, 2);
  if (elements_of(h.of) == 0) return;
  constexpr bool kBf16 = kIn == Precision::kBf16;
  launch_tiles<device::HalfConvWide, device::HalfConvTiled>(
      context, kBf16 ? Kernel::conv_bf16_wide : Kernel::conv_f16_wide,
      kBf16 ? Kernel::conv_bf16_tiled : Kernel::conv_f16_tiled, h.of, h);
}

/// Constant filters, [groups, k, filters], the filters rounded up.
Ref packed_filters(LowerContext& c, const ConvParams& p) {
  const Tensor& filters = c.known_value(1);
  const int64_t k = terms_of(p), row = p.packed_filters;
  const Packing packing{cat("cuda-conv-", p.groups, "-", k, "-", p.filters), DType::kF32, p.groups * k * row, {}};
  return c.packed({&filters}, packing, [&](void* to) {
    auto* out = static_cast<float*>(to);
    const auto* from = filters.as<float>();
    for (int64_t group = 0; group < p.groups; ++group, from += p.filters * k) {
      for (int64_t term = 0; term < k; ++term, out += row) {
        for (int64_t f = 0; f < p.filters; ++f) out[f] = from[f * k + term];
        std::fill(out + p.filters, out + row, 0.0f);
      }
    }
  });
}

/// Constant filters as rows of pairs.
template <Precision kTo>
Ref filter_pairs(LowerContext& c, int64_t rows, int64_t k, int64_t pairs_row) {
  const Tensor& filters = c.known_value(1);
  const Packing packing{cat("cuda-filters-", rows, "-", k), half_dtype(kTo), 2 * rows * pairs_row, {}};
  return c.packed({&filters}, packing, [&](void* to) {
    auto* out = static_cast<uint32_t*>(to);
    for (int64_t row = 0; row < rows; ++row, out += pairs_row) {
      const float* const from = filters.as<float>() + row * k;
      std::fill(out, out + pairs_row, 0u);
      for (int64_t i = 0; i < k; i += 2) out[i / 2] = pair_of<kTo>(from[i], i + 1 < k ? from[i + 1] : 0.0f);
    }
  });
}

template <Precision kIn>
void lower_conv(LowerContext& c) {
  const ConvShape s = conv_shape(c);
  const Window& w = s.window;
  ConvParams p{};
  for (size_t d = 0; d < 3; ++d) p.axes[d] = axis_of(w.dim[d]);
  p.batch = s.batch;
  p.groups = static_cast<int32_t>(s.groups);
  p.channels = static_cast<int32_t>(s.channels);
  p.filters = static_cast<int32_t>(s.filters);
  p.chunk = static_cast<int32_t>(kernels::sum_chunk(s.window_elements()));
  p.adds_zero = kernels::is_depthwise(s.channels, s.groups, w.rank, on_cpu(w.dim[1]), on_cpu(w.dim[2]));
  const Function f = *fused_function(c);
  p.reach = device::reach_of(p.axes, w.has_padding());
  p.by_fours = s.pointwise() && w.in_elements() % 4 == 0;
  p.act = f.op;
  p.alpha = f.alpha;
  p.beta = f.beta;
  const Ref bias = c.has_input(2) ? c.in(2) : Ref{};
  if constexpr (!rounds_operands(kIn)) {
    Ref filters = c.in(1);
    if (c.input(1).constant && makes_tiles(p) && terms_of(p) > 0) {
      p.packed_filters = (p.filters + 3) / 4 * 4;
      filters = packed_filters(c, p);
    }
    c.step(run_conv, p, {c.out(0), c.in(0), filters, bias, makes_tiles(p) ? parts_of(c, p) : Ref{}});
  } else {
    HalfConvParams h{};
    h.of = p;
    h.of.chunk = static_cast<int32_t>(device::half_chunk(p.chunk));
    const int64_t k = s.window_elements(), rows = s.groups * s.filters;
    Ref filters;
    if (c.input(1).constant && k * rows > 0) {
      h.pairs_row = static_cast<int32_t>((k + 7) / 8 * 4);
      filters = filter_pairs<kIn>(c, rows, k, h.pairs_row);
    } else {
      filters = c.in(1);
    }
    c.step(run_half_conv<kIn>, h, {c.out(0), c.in(0), filters, bias, parts_of(c, h.of)});
  }
}

template <Precision kIn>
void add_half_convs(OpRegistry& r) {
  add_half(r, kOnnx, "Conv", lower_conv<kIn>, half_conv_cost, kIn);
  add_half(r, kInternal, "Conv", lower_conv<kIn>, half_conv_cost, kIn);
}

}  // namespace
}  // namespace cuda

void register_cuda_conv(OpRegistry& r) {
  using namespace cuda;
  add(r, kOnnx, "Conv", lower_conv<Precision::kFloat32>, conv_cost, Precision::kFloat32);
  add(r, kInternal, "Conv", lower_conv<Precision::kFloat32>, conv_cost, Precision::kFloat32);
  add_half_convs<Precision::kBf16>(r);
  add_half_convs<Precision::kFloat16>(r);
}

}  // namespace inferkit
