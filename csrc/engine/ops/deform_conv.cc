// DeformConv: a convolution of two dimensions whose taps lie where offsets say, between the pixels.
#include <cmath>

#include "engine/compile/op_registry.h"
#include "engine/compile/window.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"

namespace inferkit {
namespace {

enum Input : size_t { kX, kWeight, kOffset, kBias, kMask };

struct DeformParams {
  int64_t batch, channels, height, width, out_channels, out_height, out_width;
  int64_t kernel_height, kernel_width, group, offset_group;
  int64_t stride[2], dilation[2], pad[2];
};

/// Between four pixels; pixels out of the image are 0.
template <class W>
W pixel_at(const W* x, int64_t height, int64_t width, W y, W z) {
  if (!(y > -1 && y < static_cast<W>(height) && z > -1 && z < static_cast<W>(width))) return 0;
  const W top = std::floor(y), left = std::floor(z), dy = y - top, dx = z - left;
  const auto i = static_cast<int64_t>(top), j = static_cast<int64_t>(left);
  const auto get = [&](int64_t r, int64_t c) {
    return r >= 0 && r < height && c >= 0 && c < width ? x[r * width + c] : W(0);
  };
  return (1 - dy) * ((1 - dx) * get(i, j) + dx * get(i, j + 1)) +
         dy * ((1 - dx) * get(i + 1, j) + dx * get(i + 1, j + 1));
}

/// io: y, x, weights, offsets, bias, mask, columns (a column of every tap and channel for each pixel).
template <class W>
void deform_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const DeformParams*>(params);
  const auto at = [&](size_t i) { return reinterpret_cast<W*>(io[i]); };
  const int64_t taps = p.kernel_height * p.kernel_width, area = p.out_height * p.out_width;
  const int64_t depth = p.channels / p.group * taps, per_group = p.out_channels / p.group;
  RunControl* const control = RunControl::current();
  for (int64_t b = 0; b < p.batch; ++b) {
    const auto fill = [&](int64_t c) {
      WorkMeter meter(control);
      const int64_t og = b * p.offset_group + c / (p.channels / p.offset_group);
      const W* x = at(1) + (b * p.channels + c) * p.height * p.width;
      for (int64_t tap = 0; tap < taps && meter.go_on(10 * area); ++tap) {
        const W* offset = at(3) + (og * taps + tap) * 2 * area;
        const W* mask = io[5] ? at(5) + (og * taps + tap) * area : nullptr;
        W* column = at(6) + (c * taps + tap) * area;
        for (int64_t o = 0; o < area; ++o) {
          const int64_t y0 = o / p.out_width * p.stride[0] - p.pad[0] + tap / p.kernel_width * p.dilation[0];
          const int64_t x0 = o % p.out_width * p.stride[1] - p.pad[1] + tap % p.kernel_width * p.dilation[1];
          const W v =
              pixel_at(x, p.height, p.width, static_cast<W>(y0) + offset[o], static_cast<W>(x0) + offset[area + o]);
          column[o] = mask ? v * mask[o] : v;
        }
      }
    };
    const auto multiply = [&](int64_t oc) {
      WorkMeter meter(control);
      W* y = at(0) + (b * p.out_channels + oc) * area;
      std::fill(y, y + area, io[4] ? at(4)[oc] : W(0));
      const W *weight = at(2) + oc * depth, *column = at(6) + oc / per_group * depth * area;
      for (int64_t k = 0; k < depth && meter.go_on(area); ++k, column += area) {
        for (int64_t o = 0; o < area; ++o) y[o] += weight[k] * column[o];
      }
    };
    const auto all = [&](int64_t count, int64_t each, auto&& f) {
      for_ranges(context, count, (1 << 16) / std::max<int64_t>(1, each), [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) f(i);
      });
    };
    all(p.channels, taps * area * 8, fill);
    all(p.out_channels, depth * area, multiply);
  }
}

DeformParams read_params(const NodeContext& c) {
  const Shape &x = c.input(kX).shape, &w = c.input(kWeight).shape, &offset = c.input(kOffset).shape;
  if (x.rank() != 4 || w.rank() != 4 || offset.rank() != 4) {
    if (x.rank() == 3 || x.rank() == 5) c.unsupported(cat("an image of ", x.rank() - 2, " dimensions"));
    c.fail(cat("x ", x.str(), ", weights ", w.str(), ", offsets ", offset.str()));
  }
  DeformParams p{x[0], x[1], x[2], x[3], w[0], offset[2], offset[3], w[2], w[3], 0, 0, {}, {}, {}};
  if (std::max({x[2], x[3], w[2], w[3]}) > (int64_t{1} << 24)) c.unsupported(cat("an image of shape ", x.str()));
  p.group = group_count(c);
  p.offset_group = c.attr_int("offset_group", 1);
  const auto list = [&](std::string_view name, size_t count, int64_t fallback, int64_t least) {
    std::vector<int64_t> v = c.attr_ints(name);
    if (v.empty()) v.assign(count, fallback);
    if (v.size() != count) c.fail(cat(name, " has ", v.size(), " values"));
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
    c.fail(cat("weights of shape ", w.str(), " for ", x[1], " channels, ", p.group, " groups and ", p.offset_group,
               " groups of offsets"));
  }
  for (size_t i = 0; i < 2; ++i) {
    p.stride[i] = strides[i];
    p.dilation[i] = dilations[i];
    p.pad[i] = pads[i];
    const int64_t out = (x[2 + i] + pads[i] + pads[2 + i] - dilations[i] * (w[2 + i] - 1) - 1) / strides[i] + 1;
    if (offset[2 + i] != out) c.fail(cat("offsets of shape ", offset.str(), " for a result of ", out));
  }
  const auto counted = Shape{p.offset_group, w[2], w[3]}.checked_elements();
  const int64_t taps = counted.value_or(0);
  if (!counted || taps > (int64_t{1} << 60) || offset[0] != x[0] || offset[1] != 2 * taps)
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
  const int64_t columns = p.channels * p.kernel_height * p.kernel_width * p.out_height * p.out_width;
  const Ref y = begin_output(c, 0, work);
  c.step(work == DType::kF64 ? deform_step<double> : deform_step<float>, p,
         {y, input(kX), input(kWeight), input(kOffset), input(kBias), input(kMask),
          c.scratch(static_cast<size_t>(columns) * dtype_size(work))},
         static_cast<double>(p.batch * columns) * static_cast<double>(8 + p.out_channels / p.group / 4));
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
