// QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, for integers of 2 to 32 bits and floats of 4 and 8: one
// scale for all, per axis, or per block.
#include "kernels/cpu/quantize/quantize.h"

#include <mutex>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/common/quantization.h"
#include "engine/ops/common/small_convert.h"
#include "engine/ops/parallel.h"

namespace inferkit {
namespace {

constexpr TypeSet kQuantized = types(DType::kU8, DType::kI8, DType::kU16, DType::kI16);
constexpr TypeSet kQuantizable = kScaleTypes | types(DType::kI32);
constexpr TypeSet kDequantizable = kQuantized | types(DType::kI32);
constexpr TypeSet kSmallQuantized = types(DType::kF8E4M3FN, DType::kF8E4M3FNUZ, DType::kF8E5M2, DType::kF8E5M2FNUZ,
                                          DType::kF4E2M1, DType::kI4, DType::kU4, DType::kI2, DType::kU2);

constexpr int64_t kGrain = 1 << 16;  // elements worth a thread

struct QuantizeParams {
  ScaleLayout layout;
  DType quotient;    // the type that the division rounds to
  SmallRange range;  // of the quantized integer
};

/// f(i, scale index) for every element.
template <class F>
void for_scaled(const ExecContext& context, const ScaleLayout& layout, const F& f) {
  for_ranges(context, layout.elements(), kGrain, [&](int64_t first, int64_t last) {
    for_scale_runs(layout, first, last, [&](int64_t i, int64_t n, int64_t s, int64_t stride) {
      for (const int64_t end = i + n; i < end; ++i, s += stride) f(i, s);
    });
  });
}

/// What the kernels take: same(i, n, scale, zero point) for runs with one scale; each(i, n, scales, zero points, or
/// nullptr) where it changes from neighbour to neighbour, or runs are too short to be worth a call.
template <class Z, class Same, class Each>
void for_runs(const ExecContext& context, const ScaleLayout& layout, const float* scale, const Z* zero,
              const Same& same, const Each& each) {
  constexpr int64_t kShort = 16, kBlock = 256;
  const int64_t count = layout.elements();
  const auto take = [&](int64_t i, int64_t n, int64_t s, int64_t stride) {
    if (stride)
      each(i, n, scale + s, zero ? zero + s : nullptr);
    else
      same(i, n, scale[s], zero ? int32_t{zero[s]} : 0);
  };
  const auto spread = [&](int64_t first, int64_t last) {
    float scales[kBlock];
    Z zeros[kBlock];
    for_scale_runs(layout, first, last, [&](int64_t i, int64_t n, int64_t s, int64_t stride) {
      for (const int64_t end = i + n; i < end; ++i, s += stride) {
        scales[i - first] = scale[s];
        if (zero) zeros[i - first] = zero[s];
      }
    });
    each(first, last - first, scales, zero ? zeros : nullptr);
  };
  for_ranges(context, count, kGrain, [&](int64_t first, int64_t last) {
    if (layout.run() >= std::min(kShort, count)) return for_scale_runs(layout, first, last, take);
    for (int64_t i = first; i < last; i += kBlock) spread(i, std::min(i + kBlock, last));
  });
}

/// X: float or int32. Y: the quantized integer, or float, which a small float is then made from.
template <class X, class Y>
void quantize_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const QuantizeParams*>(params);
  using C = std::conditional_t<std::is_same_v<X, int32_t>, double, float>;
  auto* y = reinterpret_cast<Y*>(io[0]);
  const auto* x = reinterpret_cast<const X*>(io[1]);
  const auto* scale = reinterpret_cast<const float*>(io[2]);
  const auto* zero = reinterpret_cast<const Y*>(io[3]);
  const auto divide = [&](int64_t i, int64_t s) { return static_cast<C>(x[i]) / static_cast<C>(scale[s]); };
  const auto write = [&](int64_t i, int64_t s, auto quotient) {
    if constexpr (std::is_same_v<Y, float>)
      y[i] = static_cast<float>(quotient) + (zero ? zero[s] : 0.0f);
    else
      y[i] = saturate<Y>(quotient, zero ? int32_t{zero[s]} : 0, p.range);
  };
  if (p.quotient != DType::kF16 && p.quotient != DType::kBF16) {
    return for_scaled(context, p.layout, [&](int64_t i, int64_t s) { write(i, s, divide(i, s)); });
  }
  for_scaled(context, p.layout, [&, half = p.quotient == DType::kF16](int64_t i, int64_t s) {
    const auto quotient = static_cast<float>(divide(i, s));
    write(i, s, half ? to_float(to_half(quotient)) : to_float(to_bfloat16(quotient)));
  });
}

/// Float to whole bytes, divided in float.
template <class Y>
void quantize_bytes_step(const void* params, std::byte* const* io, const ExecContext& context) {
  auto* y = reinterpret_cast<Y*>(io[0]);
  const auto* x = reinterpret_cast<const float*>(io[1]);
  const auto* scale = reinterpret_cast<const float*>(io[2]);
  const auto* zero = reinterpret_cast<const Y*>(io[3]);
  const auto& kernels = kernels::quantize_kernels().bytes<Y>();
  for_runs(
      context, static_cast<const QuantizeParams*>(params)->layout, scale, zero,
      [&](int64_t i, int64_t n, float s, int32_t z) { kernels.quantize(x + i, y + i, n, s, z); },
      [&](int64_t i, int64_t n, const float* s, const Y* z) { kernels.quantize_each(x + i, y + i, n, s, z); });
}

template <class X>
void dequantize_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const QuantizeParams*>(params);
  auto* y = reinterpret_cast<float*>(io[0]);
  const auto* x = reinterpret_cast<const X*>(io[1]);
  const auto* scale = reinterpret_cast<const float*>(io[2]);
  const auto* zero = reinterpret_cast<const X*>(io[3]);
  using Wide =
      std::conditional_t<std::is_same_v<X, float>, float, std::conditional_t<sizeof(X) == 4, int64_t, int32_t>>;
  for_scaled(context, p.layout, [&](int64_t i, int64_t s) {
    y[i] = static_cast<float>(Wide{x[i]} - (zero ? Wide{zero[s]} : Wide{})) * scale[s];
  });
}

template <class X>
void dequantize_bytes_step(const void* params, std::byte* const* io, const ExecContext& context) {
  auto* y = reinterpret_cast<float*>(io[0]);
  const auto* x = reinterpret_cast<const X*>(io[1]);
  const auto* scale = reinterpret_cast<const float*>(io[2]);
  const auto* zero = reinterpret_cast<const X*>(io[3]);
  const auto& kernels = kernels::quantize_kernels().bytes<X>();
  for_runs(
      context, static_cast<const QuantizeParams*>(params)->layout, scale, zero,
      [&](int64_t i, int64_t n, float s, int32_t z) { kernels.dequantize(x + i, y + i, n, s, z); },
      [&](int64_t i, int64_t n, const float* s, const X* z) { kernels.dequantize_each(x + i, y + i, n, s, z); });
}

/// Without a zero point, which could take the difference out of 32 bits.
void dequantize_i32_step(const void* params, std::byte* const* io, const ExecContext& context) {
  auto* y = reinterpret_cast<float*>(io[0]);
  const auto* x = reinterpret_cast<const int32_t*>(io[1]);
  const auto* scale = reinterpret_cast<const float*>(io[2]);
  const auto& kernels = kernels::quantize_kernels();
  for_runs(
      context, static_cast<const QuantizeParams*>(params)->layout, scale, static_cast<const int32_t*>(nullptr),
      [&](int64_t i, int64_t n, float s, int32_t) { kernels.dequantize_i32(x + i, y + i, n, s); },
      [&](int64_t i, int64_t n, const float* s, auto) { kernels.dequantize_i32_each(x + i, y + i, n, s); });
}

/// The zero point, if there is one, lies as the scale does.
void check_zero_point(const NodeContext& c, DType dtype) {
  if (!c.has_input(2)) return;
  if (c.input(2).dtype != dtype) {
    c.wrong(cat("the zero point is ", dtype_name(c.input(2).dtype), "; expected ", dtype_name(dtype)));
  }
  if (c.input(2).shape.elements() != c.input(1).shape.elements()) {
    c.fail(cat("the zero point has shape ", c.input(2).shape.str(), ", the scale ", c.input(1).shape.str()));
  }
}

/// The type that an attribute names, `fallback` where it is absent or 0.
DType named_type(const NodeContext& c, std::string_view name, int since, DType fallback) {
  const int64_t code = c.version() >= since ? c.attr_int(name, 0) : 0;
  return code == 0 ? fallback : attr_dtype(c, code);
}

void infer_quantize(InferContext& c) {
  const DType declared = named_type(c, "output_dtype", 21, DType::kU8);
  if (!contains(kQuantized | kSmallQuantized, declared)) c.unsupported(cat("quantizing to ", dtype_name(declared)));
  if (!contains(kScaleTypes, named_type(c, "precision", 23, DType::kF32))) c.fail("the precision is no floating type");
  block_size(c);
  require_type(c, 0, kQuantizable);
  require_type(c, 1, kScaleTypes);
  const DType dtype = c.has_input(2) ? c.input(2).dtype : declared;
  if (c.version() >= 21 && c.attr_int("output_dtype", 0) != 0 && declared != dtype) {
    c.wrong(cat("output_dtype is ", dtype_name(declared), ", the zero point ", dtype_name(dtype)));
  }
  if (!contains(kQuantized | kSmallQuantized, dtype)) c.unsupported(cat("quantizing to ", dtype_name(dtype)));
  check_zero_point(c, dtype);
  scale_layout(c);
  c.set_output(0, dtype, c.input(0).shape);
}

/// The limits of an integer type that quantize_step writes; of no use for floats.
SmallRange range_of(DType y) {
  if (is_small_integer(y)) return small_range(y);
  SmallRange range{};
  dispatch<kQuantized>(y, [&]<class Y>() -> bool {
    range = {std::numeric_limits<Y>::lowest(), std::numeric_limits<Y>::max()};
    return true;
  });
  return range;
}

/// Input 2 as what the step computes with, invalid where it is absent.
Ref zero_point(LowerContext& c) {
  if (!c.has_input(2)) return {};
  const DType dtype = c.input(2).dtype;
  return is_small(dtype) ? widened_small(c, c.in(2), dtype, c.input(2).shape.elements()) : c.in(2);
}

void lower_quantize(LowerContext& c) {
  const DType x = compute_type(c.input(0).dtype), y = c.output(0).dtype, computed = is_small(y) ? carrier_of(y) : y;
  // Before opset 23 nothing says what the division rounds to; ONNX Runtime divides in float.
  const QuantizeParams p{
      scale_layout(c), c.version() >= 23 ? named_type(c, "precision", 23, c.input(1).dtype) : DType::kF32, range_of(y)};
  const bool kernel = x == DType::kF32 && contains(kByteTypes, y) && p.quotient == DType::kF32;
  const StepFn fn = kernel ? dispatch<kByteTypes>(y, []<class Y>() -> StepFn { return quantize_bytes_step<Y>; })
                           : dispatch<types(DType::kF32, DType::kI32)>(x, [&]<class X>() -> StepFn {
                               return dispatch<kQuantized | types(DType::kF32)>(
                                   computed, []<class Y>() -> StepFn { return quantize_step<X, Y>; });
                             });
  const int64_t n = p.layout.elements();
  const Ref out = is_small(y) ? c.scratch(static_cast<size_t>(n) * dtype_size(computed)) : c.out(0);
  const Ref in = converted(c, c.in(0), c.input(0).dtype, x, n);
  c.step(fn, p, {out, in, scales_as_float(c, 1), zero_point(c)}, static_cast<double>(n) * (kernel ? 0.3 : 2));
  if (is_small(y)) {
    const bool saturates = c.version() < 19 || c.attr_int("saturate", 1) != 0;
    lower_narrow_small(c, out, c.out(0), y, {.saturate = saturates}, n);
  }
}

void infer_dequantize(InferContext& c) {
  if (const DType named = named_type(c, "output_dtype", 23, DType::kF32); !contains(kScaleTypes, named)) {
    c.unsupported(cat("output_dtype ", dtype_name(named)));
  }
  block_size(c);
  require_type(c, 0, kDequantizable | kSmallQuantized);
  require_type(c, 1, kScaleTypes | types(DType::kF8E8M0));
  const DType dtype = named_type(c, "output_dtype", 23, c.input(1).dtype);
  if (!contains(kScaleTypes, dtype)) c.fail(cat("output_dtype is ", dtype_name(dtype)));
  check_zero_point(c, c.input(0).dtype);
  scale_layout(c);
  c.set_output(0, dtype, c.input(0).shape);
}

void lower_dequantize(LowerContext& c) {
  const DType x = c.input(0).dtype, read = is_small(x) ? carrier_of(x) : x;
  StepFn fn = nullptr;
  if (read == DType::kI32 && !c.has_input(2)) {
    fn = dequantize_i32_step;
  } else {
    fn = dispatch<kByteTypes>(read, []<class X>() -> StepFn { return dequantize_bytes_step<X>; });
  }
  const bool kernel = fn != nullptr;
  if (!kernel) {
    fn = dispatch<(kDequantizable & ~kByteTypes) | types(DType::kF32)>(
        read, []<class X>() -> StepFn { return dequantize_step<X>; });
  }
  const QuantizeParams p{scale_layout(c), DType::kF32, {}};
  const int64_t n = p.layout.elements();
  const Ref in = is_small(x) ? widened_small(c, c.in(0), x, n) : c.in(0);
  const Ref out = begin_output(c, 0, DType::kF32);
  c.step(fn, p, {out, in, scales_as_float(c, 1), zero_point(c)}, static_cast<double>(n) * (kernel ? 0.2 : 1));
  end_output(c, 0, out, DType::kF32);
}

// ---- DynamicQuantizeLinear: scale and zero point from the whole tensor's range, which is made to hold 0 -------------

struct DynamicParams {
  int64_t count;
};
void dynamic_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const int64_t n = static_cast<const DynamicParams*>(params)->count;
  const auto* x = reinterpret_cast<const float*>(io[3]);
  const kernels::QuantizeKernels& kernels = kernels::quantize_kernels();
  float low = 0, high = 0;
  std::mutex together;  // the ranges of the pieces, in whichever order they come
  for_ranges(context, n, kGrain, [&](int64_t first, int64_t last) {
    float l = 0, h = 0;
    kernels.widen_range(x + first, last - first, &l, &h);
    const std::lock_guard lock(together);
    low = std::min(low, l);
    high = std::max(high, h);
  });
  const float scale = high == low ? 1.0f : (high - low) / 255.0f;
  const auto zero = saturate<uint8_t>(-low / scale, 0);
  if (io[1]) *reinterpret_cast<float*>(io[1]) = scale;
  if (io[2]) *reinterpret_cast<uint8_t*>(io[2]) = zero;
  auto* y = reinterpret_cast<uint8_t*>(io[0]);
  if (!y) return;
  for_ranges(context, n, kGrain, [&](int64_t first, int64_t last) {
    kernels.u8.quantize(x + first, y + first, last - first, scale, zero);
  });
}

void infer_dynamic(InferContext& c) {
  require_type(c, 0, types(DType::kF32));
  c.set_output(0, DType::kU8, c.input(0).shape);
  c.set_output(1, DType::kF32, {});
  c.set_output(2, DType::kU8, {});
}
void lower_dynamic(LowerContext& c) {
  const int64_t n = c.input(0).shape.elements();
  c.step(dynamic_step, DynamicParams{n}, {c.out(0), c.out(1), c.out(2), c.in(0)}, static_cast<double>(n) * 0.4);
}

}  // namespace

void register_quantize(OpRegistry& r) {
  r.add({.name = "QuantizeLinear",
         .since = 10,
         .min_inputs = 2,
         .max_inputs = 3,
         .max_outputs = 1,
         .infer = infer_quantize},
        lower_quantize);
  r.add({.name = "DequantizeLinear",
         .since = 10,
         .min_inputs = 2,
         .max_inputs = 3,
         .max_outputs = 1,
         .infer = infer_dequantize},
        lower_dequantize);
  r.add({.name = "DynamicQuantizeLinear",
         .since = 11,
         .min_inputs = 1,
         .max_inputs = 1,
         .min_outputs = 3,
         .max_outputs = 3,
         .infer = infer_dynamic,
         .rows_mix = [](const Node&, const Graph&) { return true; }},
        lower_dynamic);
}

}  // namespace inferkit
