// Conv in one to three dimensions, with groups, and our own Conv with a fused activation. Float32 has several ways to
// run (common/conv.h), float64 one of them, bf16 one of its own; halves and depthwise float64 run a plain loop in
// double.
#include "engine/ops/common/conv.h"

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "platform/run_control.h"

namespace inferkit {

namespace {

void infer_conv(InferContext& c) {
  check_window_attributes(c);
  require_type(c, 0, kFloatTypes);
  require_same_type(c, 0, 1);
  if (c.has_input(2)) require_same_type(c, 0, 2);
  const ConvShape s = conv_shape(c);
  c.set_output(0, c.input(0).dtype, window_output(s.window, s.batch, s.groups * s.filters));
}

template <class T>
void run_generic(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& s = *static_cast<const ConvShape*>(params);
  const Window& w = s.window;
  const WindowDim &d0 = w.dim[0], &d1 = w.dim[1], &d2 = w.dim[2];  // clang 14 lends no bindings to lambdas
  const int64_t area = w.in_elements(), taps = w.kernel_elements();
  const T *bias = reinterpret_cast<const T*>(io[3]), *weights = reinterpret_cast<const T*>(io[2]);
  T* y = reinterpret_cast<T*>(io[0]);
  WorkMeter meter;
  for (int64_t plane = 0; plane < s.batch * s.groups * s.filters; ++plane) {
    const T* x = reinterpret_cast<const T*>(io[1]) + plane / s.filters * s.channels * area;
    const int64_t filter = plane % (s.groups * s.filters);
    for (int64_t o = 0; o < w.out_elements(); ++o) {
      const auto t0 = d0.taps(o / d2.out / d1.out), t1 = d1.taps(o / d2.out % d1.out), t2 = d2.taps(o % d2.out);
      double sum = bias ? static_cast<double>(load(bias[filter])) : 0;
      const bool went_on = for_blocks(meter, 0, s.channels, 5 + 2 * taps, [&](int64_t first, int64_t last) {
        for (int64_t ch = first; ch < last; ++ch) {
          const T* in = x + ch * area;
          const T* k = weights + (filter * s.channels + ch) * taps;
          for (int64_t i = t0.first; i < t0.last; ++i) {
            for (int64_t j = t1.first; j < t1.last; ++j) {
              const int64_t row = (t0.start + i * d0.dilation) * d1.in + t1.start + j * d1.dilation;
              const T* from = in + row * d2.in;
              const T* by = k + (i * d1.kernel + j) * d2.kernel;
              for (int64_t l = t2.first; l < t2.last; ++l)
                sum += static_cast<double>(load(from[t2.start + l * d2.dilation])) * static_cast<double>(load(by[l]));
            }
          }
        }
      });
      if (!went_on) return;
      *y++ = store<T>(static_cast<Compute<T>>(sum));
    }
  }
}

void lower_plain(LowerContext& c) {
  if (c.has_attr("activation")) c.fail("an activation was fused into a convolution that is not float32");
  const ConvShape s = conv_shape(c);
  const auto fn = dispatch<kFloatTypes>(c.input(0).dtype, []<class T>() -> StepFn { return run_generic<T>; });
  c.step(fn, s, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}},
         multiplied(c.output(0).shape.elements(), s.channels, s.window.kernel_elements()) * 2);
}

Cost plain_cost(const NodeContext& c) {
  if (c.input(0).dtype == DType::kF32)
    return Cost::cannot("it sums in double, and float32 has ways that follow the rule");
  if (c.input(0).dtype == DType::kF64 && !conv_plain_in_double(conv_shape(c)))
    return Cost::cannot("it sums in one chunk, and float64 in those of the rule");
  return Cost(0);
}

}  // namespace

void register_conv(OpRegistry& r) {
  constexpr Precision kF32 = Precision::kFloat32;
  const std::vector<Lowering> ways = {
      {.name = "depthwise", .lower = lower_conv_depthwise, .cost = conv_depthwise_cost, .precision = kF32},
      {.name = "channels",
       .lower = lower_conv_channels,
       .cost = conv_channels_cost,
       .precision = kF32,
       .blocks_nanos = conv_channels_nanos},
      {.name = "blocks",
       .lower = lower_conv_blocks,
       .cost = conv_blocks_cost,
       .precision = kF32,
       .blocks_nanos = conv_blocks_nanos},
      {.name = "packed", .lower = lower_conv_packed, .cost = conv_packed_cost},
      {.name = "windows", .lower = lower_conv_windows, .cost = conv_windows_cost, .precision = kF32},
      {.name = "rows", .lower = lower_conv_rows, .cost = conv_rows_cost, .precision = kF32},
      {.name = "plain", .lower = lower_plain, .cost = plain_cost},
      {.name = "bf16", .lower = lower_conv_bf16, .cost = conv_bf16_cost, .precision = Precision::kBf16},
  };
  const OpSchema schema{.name = "Conv",
                        .min_inputs = 2,
                        .max_inputs = 3,
                        .max_outputs = 1,
                        .infer = infer_conv,
                        .mixed_axes = conv_axes<1>};
  r.add(schema, ways);
  OpSchema fused = schema;
  fused.domain = kInternal;
  r.add(fused, ways);
}

}  // namespace inferkit
