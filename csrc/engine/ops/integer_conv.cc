// ConvInteger and QLinearConv: windows of bytes, summed exactly in int32 (which wraps where it must). Padding stands
// for the zero point, so it adds nothing.
#include "engine/op_registry.h"
#include "engine/ops/common/quantization.h"
#include "engine/ops/common/requantize.h"
#include "engine/ops/parallel.h"
#include "engine/ops/window.h"

namespace inferkit {
namespace {

/// Where the operands stand among a node's inputs.
struct Operands {
  size_t x, w, x_zero, w_zero;
};
constexpr Operands kConvInteger{0, 1, 2, 3};
constexpr Operands kQLinearConv{0, 3, 2, 5};

struct ConvParams {
  Window window;
  int64_t batch, groups, channels, filters;  // channels and filters of one group
  int64_t zero_stride;                       // of the weights' zero point over the filters
};

/// 0 where input i is one value, 1 where it has one per filter.
int64_t filter_stride(const NodeContext& c, size_t i, int64_t filters) {
  if (!c.has_input(i) || c.input(i).shape.elements() == 1) return 0;
  if (c.input(i).shape != Shape{filters}) {
    c.fail(cat("input ", i, " has shape ", c.input(i).shape.str(), "; expected one value or ", filters));
  }
  return 1;
}

ConvParams conv_params(const NodeContext& c, const Operands& at) {
  const Shape &x = c.input(at.x).shape, &w = c.input(at.w).shape;
  if (w.rank() != x.rank() || w.rank() < 3) {
    c.fail(cat("expected [batch, channels, spatial...] and [filters, channels, kernel...], got ", x.str(), " and ",
               w.str()));
  }
  const std::vector<int64_t> kernel(w.begin() + 2, w.end());
  const auto declared = c.attr_ints("kernel_shape");
  if (!declared.empty() && declared != kernel) c.fail(cat("kernel_shape is not that of the weights, ", w.str()));
  const int64_t groups = group_count(c);
  if (w[0] % groups != 0 || x[1] != w[1] * groups) {
    c.fail(cat("weights of shape ", w.str(), " in ", groups, " groups do not fit ", x.str()));
  }
  if (c.has_input(at.x_zero) && c.input(at.x_zero).shape.elements() != 1) c.fail("the input has one zero point");
  return {make_window(c, x, kernel, false), x[0], groups, w[1], w[0] / groups, filter_stride(c, at.w_zero, w[0])};
}

/// The outputs [first, last) of one dimension whose tap `k` falls inside the input.
struct Reach {
  int64_t start, first, last;
};
Reach reach(const WindowDim& d, int64_t k) {
  const int64_t start = k * d.dilation - d.pad_begin;
  const int64_t first = start < 0 ? (-start + d.stride - 1) / d.stride : 0;
  const int64_t last = d.in > start ? std::min(d.out, (d.in - 1 - start) / d.stride + 1) : 0;
  return {start, first, last};
}

/// sums += weight * (plane - zero) over one channel and one tap.
template <class X>
void add_tap(const Window& w, const X* plane, int32_t zero, int32_t weight, const std::array<int64_t, 3>& tap,
             uint32_t* sums) {
  const Reach depth = reach(w.dim[0], tap[0]), rows = reach(w.dim[1], tap[1]), line = reach(w.dim[2], tap[2]);
  const int64_t stride = w.dim[2].stride;
  for (int64_t z = depth.first; z < depth.last; ++z) {
    for (int64_t y = rows.first; y < rows.last; ++y) {
      const int64_t in_z = z * w.dim[0].stride + depth.start, in_y = y * w.dim[1].stride + rows.start;
      const X* source = plane + (in_z * w.dim[1].in + in_y) * w.dim[2].in + line.start;
      uint32_t* target = sums + (z * w.dim[1].out + y) * w.dim[2].out;
      for (int64_t x = line.first; x < line.last; ++x) {
        target[x] += static_cast<uint32_t>(weight * (int32_t{source[x * stride]} - zero));
      }
    }
  }
}

/// io: the sums, x, w, and their zero points or null.
template <class X, class W>
void conv_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ConvParams*>(params);
  const int64_t plane = p.window.in_elements(), out = p.window.out_elements(), taps = p.window.kernel_elements();
  const int64_t filters = p.groups * p.filters;
  const int32_t x_zero = io[3] ? int32_t{*reinterpret_cast<const X*>(io[3])} : 0;
  const auto* w_zero = reinterpret_cast<const W*>(io[4]);
  const auto filter_of = [&](int64_t index) {
    const int64_t n = index / filters, f = index % filters;
    uint32_t* sums = reinterpret_cast<uint32_t*>(io[0]) + index * out;
    std::fill(sums, sums + out, 0u);
    const int32_t zero = w_zero ? int32_t{w_zero[f * p.zero_stride]} : 0;
    const W* weights = reinterpret_cast<const W*>(io[2]) + f * p.channels * taps;
    for (int64_t ch = 0; ch < p.channels; ++ch) {
      const X* source =
          reinterpret_cast<const X*>(io[1]) + (n * p.groups * p.channels + f / p.filters * p.channels + ch) * plane;
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t kx = p.window.dim[2].kernel, ky = p.window.dim[1].kernel;
        add_tap(p.window, source, x_zero, int32_t{weights[ch * taps + tap]} - zero,
                {tap / (kx * ky), tap / kx % ky, tap % kx}, sums);
      }
    }
  };
  const int64_t work = std::max<int64_t>(1, p.channels * taps * out);
  for_ranges(context, p.batch * filters, (int64_t{1} << 18) / work, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) filter_of(i);
  });
}

void lower_conv(LowerContext& c, const ConvParams& p, Ref out, const Operands& at) {
  const StepFn fn = dispatch<kByteTypes>(c.input(at.x).dtype, [&]<class X>() -> StepFn {
    return dispatch<kByteTypes>(c.input(at.w).dtype, []<class W>() -> StepFn { return conv_step<X, W>; });
  });
  const auto zero = [&](size_t i) { return c.has_input(i) ? c.in(i) : Ref{}; };
  const double outputs = static_cast<double>(p.batch * p.groups * p.filters * p.window.out_elements());
  c.step(fn, p, {out, c.in(at.x), c.in(at.w), zero(at.x_zero), zero(at.w_zero)},
         outputs * static_cast<double>(p.channels * p.window.kernel_elements()) / 2);
}

void check_types(const NodeContext& c, const Operands& at) {
  require_type(c, at.x, kByteTypes);
  require_type(c, at.w, kByteTypes);
  if (c.has_input(at.x_zero)) require_same_type(c, at.x, at.x_zero);
  if (c.has_input(at.w_zero)) require_same_type(c, at.w, at.w_zero);
}

void infer_conv_integer(InferContext& c) {
  check_types(c, kConvInteger);
  const ConvParams p = conv_params(c, kConvInteger);
  c.set_output(0, DType::kI32, window_output(p.window, p.batch, p.groups * p.filters));
}
void lower_conv_integer(LowerContext& c) { lower_conv(c, conv_params(c, kConvInteger), c.out(0), kConvInteger); }

// x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias
void infer_qlinear_conv(InferContext& c) {
  check_types(c, kQLinearConv);
  for (const size_t i : {1, 4, 6}) require_type(c, i, types(DType::kF32));
  require_type(c, 7, kByteTypes);
  for (const size_t i : {1, 6, 7}) {
    if (c.input(i).shape.elements() != 1) c.fail(cat("input ", i, " must be one value"));
  }
  const ConvParams p = conv_params(c, kQLinearConv);
  const int64_t filters = p.groups * p.filters;
  filter_stride(c, 4, filters);
  if (c.has_input(8)) {
    require_type(c, 8, types(DType::kI32));
    if (c.input(8).shape != Shape{filters}) c.fail(cat("the bias has shape ", c.input(8).shape.str()));
  }
  c.set_output(0, c.input(7).dtype, window_output(p.window, p.batch, filters));
}

void lower_qlinear_conv(LowerContext& c) {
  const ConvParams p = conv_params(c, kQLinearConv);
  const int64_t filters = p.groups * p.filters;
  const Ref sums = c.scratch(static_cast<size_t>(c.output(0).shape.elements()) * sizeof(int32_t));
  lower_conv(c, p, sums, kQLinearConv);
  const RequantizeParams r{p.batch, filters, p.window.out_elements(), 1, 0, filter_stride(c, 4, filters)};
  lower_requantize(c, r, c.out(0), sums, c.in(1), c.in(4), c.in(6), c.in(7), c.has_input(8) ? c.in(8) : Ref{});
}

}  // namespace

void register_integer_conv(OpRegistry& r) {
  r.add({.name = "ConvInteger",
         .since = 10,
         .min_inputs = 2,
         .max_inputs = 4,
         .max_outputs = 1,
         .infer = infer_conv_integer},
        lower_conv_integer);
  r.add({.name = "QLinearConv",
         .since = 10,
         .min_inputs = 8,
         .max_inputs = 9,
         .max_outputs = 1,
         .infer = infer_qlinear_conv},
        lower_qlinear_conv);
}

}  // namespace inferkit
