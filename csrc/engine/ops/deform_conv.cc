// DeformConv: a convolution of two dimensions whose taps lie where offsets say, between the pixels. Where they lie is
// found once for all channels that share offsets; then each image's windows are written into the panels of a product.
#include <cmath>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/window.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/gemm64/gemm64.h"

namespace inferkit {
namespace {

enum Input : size_t { kX, kWeight, kOffset, kBias, kMask };

struct DeformParams {
  int64_t batch, channels, height, width, out_channels, out_height, out_width;
  int64_t kernel_height, kernel_width, group, offset_group;
  int64_t stride[2], dilation[2], pad[2];
};

/// Where a tap of one output pixel lies, for all channels of a group of offsets: between four pixels, of which those
/// out of the image are 0.
template <class W>
struct Place {
  int64_t at = 0;        // of the top left one
  unsigned present = 0;  // top left, top right, bottom left, bottom right; none: the place is out of the image
  W down = 0, right = 0, mask = 1;
};

template <class W>
Place<W> place_at(int64_t height, int64_t width, W y, W x) {
  Place<W> p;
  if (!(y > -1 && y < static_cast<W>(height) && x > -1 && x < static_cast<W>(width))) return p;
  const W top = std::floor(y), left = std::floor(x);
  const auto i = static_cast<int64_t>(top), j = static_cast<int64_t>(left);
  const bool above = i >= 0, below = i + 1 < height, before = j >= 0, behind = j + 1 < width;
  p.at = i * width + j;
  p.present = (above && before ? 1u : 0u) | (above && behind ? 2u : 0u) | (below && before ? 4u : 0u) |
              (below && behind ? 8u : 0u);
  p.down = y - top;
  p.right = x - left;
  return p;
}

template <class W>
W value_at(const Place<W>& p, const W* x, int64_t width) {
  const auto get = [&](unsigned bit, int64_t step) { return p.present & bit ? x[p.at + step] : W(0); };
  return (1 - p.down) * ((1 - p.right) * get(1, 0) + p.right * get(2, 1)) +
         p.down * ((1 - p.right) * get(4, width) + p.right * get(8, width + 1));
}

/// io: y, x, weights, offsets, bias, mask, places [group of offsets, tap, pixel], and for each group the panels of a
/// product (kernels/cpu/gemm/gemm.h): for each channel and tap a row, for each pixel a column.
template <class W>
void deform_step(const void* params, std::byte* const* io, const ExecContext& context) {
  constexpr int64_t kColumns = kernels::kPanelColumnsOf<W>;
  const auto& p = *static_cast<const DeformParams*>(params);
  const auto at = [&](size_t i) { return reinterpret_cast<W*>(io[i]); };
  auto* const places = reinterpret_cast<Place<W>*>(io[6]);
  W* const panels = at(7);
  const int64_t taps = p.kernel_height * p.kernel_width, area = p.out_height * p.out_width;
  const int64_t channels = p.channels / p.group, depth = channels * taps, filters = p.out_channels / p.group;
  const auto each_panels = static_cast<int64_t>(kernels::GemmOf<W>::packed_elements(depth, area));
  const auto all = [&](int64_t count, int64_t each, auto&& f) {
    for_ranges(context, count, (1 << 16) / std::max<int64_t>(1, each), [&](int64_t first, int64_t last) {
      WorkMeter meter;
      for (int64_t i = first; i < last && meter.go_on(each); ++i) f(i);
    });
  };
  for (int64_t b = 0; b < p.batch; ++b) {
    all(p.offset_group * taps, area * 10, [&](int64_t i) {
      const int64_t tap = i % taps, from = b * p.offset_group * taps + i;
      const W *offset = at(3) + from * 2 * area, *mask = io[5] ? at(5) + from * area : nullptr;
      for (int64_t o = 0; o < area; ++o) {
        const int64_t y = o / p.out_width * p.stride[0] - p.pad[0] + tap / p.kernel_width * p.dilation[0];
        const int64_t x = o % p.out_width * p.stride[1] - p.pad[1] + tap % p.kernel_width * p.dilation[1];
        Place<W>& place = places[i * area + o];
        place = place_at(p.height, p.width, static_cast<W>(y) + offset[o], static_cast<W>(x) + offset[area + o]);
        if (mask) place.mask = mask[o];
      }
    });
    all(p.channels * taps, area * 3, [&](int64_t i) {
      const int64_t c = i / taps;
      const W* x = at(1) + (b * p.channels + c) * p.height * p.width;
      const Place<W>* place = places + (c / (p.channels / p.offset_group) * taps + i % taps) * area;
      W* to = panels + c / channels * each_panels + i % depth * kColumns;
      for (int64_t first = 0; first < area; first += kColumns, to += depth * kColumns) {
        const int64_t n = std::min(kColumns, area - first);
        for (int64_t o = 0; o < n; ++o) {
          const W v = value_at(place[first + o], x, p.width);
          to[o] = io[5] ? v * place[first + o].mask : v;
        }
        std::fill(to + n, to + kColumns, W(0));
      }
    });
    const auto operands = [&](int64_t g, int64_t) {
      kernels::GemmArgsOf<W> args;
      args.m = filters;
      args.n = area;
      args.k = args.lda = depth;
      args.a = at(2) + g * filters * depth;
      kernels::use_packed_b(args, panels + g * each_panels);
      args.c = at(0) + (b * p.out_channels + g * filters) * area;
      args.ldc = area;
      if (io[4]) {
        args.bias = at(4) + g * filters;
        args.bias_kind = kernels::BiasKind::kPerRow;
      }
      args.k_chunk = kernels::GemmOf<W>::chunk(kernels::sum_chunk(depth));
      return args;
    };
    const kernels::GemmBatch products{.count = p.group, .m = filters, .n = area, .k = depth};
    kernels::GemmOf<W>::batch(products, operands, context.pool, context.max_threads);
  }
}

DeformParams read_params(const NodeContext& c) {
  const Shape &x = c.input(kX).shape, &w = c.input(kWeight).shape, &offset = c.input(kOffset).shape;
  if (x.rank() != 4 || w.rank() != 4 || offset.rank() != 4) {
    if (x.rank() == 3 || x.rank() == 5) c.unsupported(cat("an image of ", counted(x.rank() - 2, "dimension")));
    c.fail(cat("x ", x.str(), ", weights ", w.str(), ", offsets ", offset.str()));
  }
  DeformParams p{x[0], x[1], x[2], x[3], w[0], offset[2], offset[3], w[2], w[3], 0, 0, {}, {}, {}};
  if (std::max({x[2], x[3], w[2], w[3]}) > (int64_t{1} << 24)) c.unsupported(cat("an image of shape ", x.str()));
  p.group = group_count(c);
  p.offset_group = c.attr_int("offset_group", 1);
  const auto list = [&](std::string_view name, size_t count, int64_t fallback, int64_t least) {
    std::vector<int64_t> v = c.attr_ints(name);
    if (v.empty()) v.assign(count, fallback);
    if (v.size() != count) c.fail(cat(name, " has ", counted(v.size(), "value")));
    for (int64_t n : v) {
      if (n < least || n > (int64_t{1} << 31)) c.fail(cat(name, " holds ", n));
    }
    return v;
  };
  const auto strides = list("strides", 2, 1, 1), dilations = list("dilations", 2, 1, 1), pads = list("pads", 4, 0, 0);
  const std::vector<int64_t> kernel = c.attr_ints("kernel_shape");
  if (!kernel.empty() && kernel != std::vector<int64_t>{w[2], w[3]}) c.fail("kernel_shape contradicts the weights");
  if (p.offset_group < 1 || x[1] % p.group != 0 || x[1] % p.offset_group != 0 || w[0] % p.group != 0 ||
      w[1] != x[1] / p.group || w[2] < 1 || w[3] < 1) {
    c.fail(cat("weights of shape ", w.str(), " for ", counted(x[1], "channel"), ", ", counted(p.group, "group"),
               " and ", counted(p.offset_group, "group"), " of offsets"));
  }
  for (size_t i = 0; i < 2; ++i) {
    p.stride[i] = strides[i];
    p.dilation[i] = dilations[i];
    p.pad[i] = pads[i];
    const int64_t out = (x[2 + i] + pads[i] + pads[2 + i] - dilations[i] * (w[2 + i] - 1) - 1) / strides[i] + 1;
    if (offset[2 + i] != out) c.fail(cat("offsets of shape ", offset.str(), " for a result of ", out));
  }
  const auto places = Shape{p.offset_group, w[2], w[3]}.checked_elements();
  const int64_t taps = places.value_or(0);
  if (!places || taps > (int64_t{1} << 60) || offset[0] != x[0] || offset[1] != 2 * taps)
    c.fail(cat("offsets of shape ", offset.str()));
  if (c.has_input(kBias) && c.input(kBias).shape != Shape{w[0]}) c.fail(cat("a bias of ", c.input(kBias).shape.str()));
  if (c.has_input(kMask) && c.input(kMask).shape != Shape{x[0], taps, offset[2], offset[3]}) {
    c.fail(cat("a mask of shape ", c.input(kMask).shape.str()));
  }
  return p;
}

void infer_deform(InferContext& c) {
  check_window_attributes(c);
  if (c.attr_int("offset_group", 1) < 1) c.fail(cat("offset_group is ", c.attr_int("offset_group", 1)));
  require_type(c, kX, kFloatTypes);
  for (const size_t i : {kWeight, kOffset, kBias, kMask}) {
    if (c.has_input(i)) require_same_type(c, kX, i);
  }
  const DeformParams p = read_params(c);
  c.set_output(0, c.input(kX).dtype, {p.batch, p.out_channels, p.out_height, p.out_width});
}

void lower_deform(LowerContext& c) {
  const DeformParams p = read_params(c);
  const DType type = c.input(kX).dtype, work = compute_type(type);
  const auto input = [&](size_t i) {
    if (!c.has_input(i)) return Ref{};
    return converted(c, i == kOffset ? c.steady(i) : c.in(i), type, work, c.input(i).shape.elements());
  };
  if (c.output(0).shape.elements() == 0) return;
  const Ref y = begin_output(c, 0, work);
  const auto add_step = [&]<class W>() {
    const int64_t taps = p.kernel_height * p.kernel_width, area = p.out_height * p.out_width;
    const size_t panels = kernels::GemmOf<W>::packed_elements(p.channels / p.group * taps, area);
    const double columns = multiplied(p.batch, p.channels, taps, area);
    c.step(deform_step<W>, p,
           {y, input(kX), input(kWeight), input(kOffset), input(kBias), input(kMask),
            c.scratch(room_for({p.offset_group, taps, area}, sizeof(Place<W>))),
            c.scratch(static_cast<size_t>(p.group) * panels * sizeof(W))},
           columns * (3 + static_cast<double>(p.out_channels / p.group) / 30));
  };
  work == DType::kF64 ? add_step.template operator()<double>() : add_step.template operator()<float>();
  end_output(c, 0, y, work);
}

}  // namespace

void register_deform_conv(OpRegistry& r) {
  r.add({.name = "DeformConv",
         .since = 19,
         .min_inputs = 3,
         .max_inputs = 5,
         .max_outputs = 1,
         .infer = infer_deform,
         .mixed_axes = behind_first_axis},
        lower_deform);
}

}  // namespace inferkit
