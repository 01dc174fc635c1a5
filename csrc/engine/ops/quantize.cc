// QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, for integers of 2 to 32 bits and floats of 4 and 8: one
// scale for all, per axis, or per block.
#include "engine/op_registry.h"
#include "engine/ops/common/quantization.h"
#include "engine/ops/common/small_convert.h"

namespace inferkit {
namespace {

constexpr TypeSet kQuantized = types(DType::kU8, DType::kI8, DType::kU16, DType::kI16);
constexpr TypeSet kQuantizable = kScaleTypes | types(DType::kI32);
constexpr TypeSet kDequantizable = kQuantized | types(DType::kI32);
constexpr TypeSet kSmallQuantized = types(DType::kF8E4M3FN, DType::kF8E4M3FNUZ, DType::kF8E5M2, DType::kF8E5M2FNUZ,
                                          DType::kF4E2M1, DType::kI4, DType::kU4, DType::kI2, DType::kU2);

struct QuantizeParams {
  ScaleLayout layout;
  DType quotient;    // the type that the division rounds to
  SmallRange range;  // of the quantized integer
};

/// f(i, scale index) for every element.
template <class F>
void for_scaled(const ScaleLayout& l, F&& f) {
  int64_t i = 0;
  for (int64_t o = 0; o < l.outer; ++o) {
    for (int64_t a = 0; a < l.axis; ++a) {
      const int64_t first = l.first(o, a);
      for (int64_t j = 0; j < l.inner; ++j, ++i) f(i, first + j * l.inner_stride);
    }
  }
}

/// Y: the quantized integer, or float, which a small float is then made from.
template <class X, class Y>
void quantize_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const QuantizeParams*>(params);
  using C = std::conditional_t<std::is_same_v<X, int32_t>, double, float>;
  auto* y = reinterpret_cast<Y*>(io[0]);
  const auto* x = reinterpret_cast<const X*>(io[1]);
  const auto* scale = reinterpret_cast<const float*>(io[2]);
  const auto* zero = reinterpret_cast<const Y*>(io[3]);
  const auto divide = [&](int64_t i, int64_t s) { return static_cast<C>(load(x[i])) / static_cast<C>(scale[s]); };
  const auto write = [&](int64_t i, int64_t s, auto quotient) {
    if constexpr (std::is_same_v<Y, float>)
      y[i] = static_cast<float>(quotient) + (zero ? zero[s] : 0.0f);
    else
      y[i] = saturate<Y>(quotient, zero ? int32_t{zero[s]} : 0, p.range);
  };
  if (p.quotient == DType::kF16) {
    for_scaled(p.layout,
               [&](int64_t i, int64_t s) { write(i, s, to_float(to_half(static_cast<float>(divide(i, s))))); });
  } else if (p.quotient == DType::kBF16) {
    for_scaled(p.layout,
               [&](int64_t i, int64_t s) { write(i, s, to_float(to_bfloat16(static_cast<float>(divide(i, s))))); });
  } else {
    for_scaled(p.layout, [&](int64_t i, int64_t s) { write(i, s, divide(i, s)); });
  }
}

template <class X, class Y>
void dequantize_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const QuantizeParams*>(params);
  auto* y = reinterpret_cast<Y*>(io[0]);
  const auto* x = reinterpret_cast<const X*>(io[1]);
  const auto* scale = reinterpret_cast<const float*>(io[2]);
  const auto* zero = reinterpret_cast<const X*>(io[3]);
  using Wide =
      std::conditional_t<std::is_same_v<X, float>, float, std::conditional_t<sizeof(X) == 4, int64_t, int32_t>>;
  for_scaled(p.layout, [&](int64_t i, int64_t s) {
    y[i] = store<Y>(static_cast<float>(Wide{x[i]} - (zero ? Wide{zero[s]} : Wide{})) * scale[s]);
  });
}

/// The zero point, if there is one, lies as the scale does.
void check_zero_point(const NodeContext& c, DType dtype) {
  if (!c.has_input(2)) return;
  if (c.input(2).dtype != dtype) {
    c.fail(cat("the zero point is ", dtype_name(c.input(2).dtype), "; expected ", dtype_name(dtype)));
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
  require_type(c, 0, kQuantizable);
  require_type(c, 1, kScaleTypes);
  const DType declared = named_type(c, "output_dtype", 21, DType::kU8);
  const DType dtype = c.has_input(2) ? c.input(2).dtype : declared;
  if (c.version() >= 21 && c.attr_int("output_dtype", 0) != 0 && declared != dtype) {
    c.fail(cat("output_dtype is ", dtype_name(declared), ", the zero point ", dtype_name(dtype)));
  }
  if (!contains(kQuantized | kSmallQuantized, dtype)) c.unsupported(cat("quantizing to ", dtype_name(dtype)));
  if (!contains(kScaleTypes, named_type(c, "precision", 23, DType::kF32))) c.fail("the precision is no floating type");
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
  const DType y = c.output(0).dtype, computed = is_small(y) ? carrier_of(y) : y;
  const StepFn fn = dispatch<kQuantizable>(c.input(0).dtype, [&]<class X>() -> StepFn {
    return dispatch<kQuantized | types(DType::kF32)>(computed, []<class Y>() -> StepFn { return quantize_step<X, Y>; });
  });
  // Before opset 23 nothing says what the division rounds to; ONNX Runtime divides in float.
  const QuantizeParams p{
      scale_layout(c), c.version() >= 23 ? named_type(c, "precision", 23, c.input(1).dtype) : DType::kF32, range_of(y)};
  const int64_t n = p.layout.elements();
  const Ref out = is_small(y) ? c.scratch(static_cast<size_t>(n) * dtype_size(computed)) : c.out(0);
  c.step(fn, p, {out, c.in(0), scales_as_float(c, 1), zero_point(c)}, static_cast<double>(n) * 2);
  if (is_small(y)) {
    const bool saturates = c.version() < 19 || c.attr_int("saturate", 1) != 0;
    lower_narrow_small(c, out, c.out(0), y, {.saturate = saturates}, n);
  }
}

void infer_dequantize(InferContext& c) {
  require_type(c, 0, kDequantizable | kSmallQuantized);
  require_type(c, 1, kScaleTypes | types(DType::kF8E8M0));
  const DType dtype = named_type(c, "output_dtype", 23, c.input(1).dtype);
  if (!contains(kScaleTypes, dtype)) c.fail(cat("output_dtype is ", dtype_name(dtype)));
  check_zero_point(c, c.input(0).dtype);
  scale_layout(c);
  c.set_output(0, dtype, c.input(0).shape);
}

void lower_dequantize(LowerContext& c) {
  const DType x = c.input(0).dtype, y = c.output(0).dtype;
  const StepFn fn =
      dispatch<kDequantizable | types(DType::kF32)>(is_small(x) ? carrier_of(x) : x, [&]<class X>() -> StepFn {
        return dispatch<kScaleTypes>(y, []<class Y>() -> StepFn { return dequantize_step<X, Y>; });
      });
  const QuantizeParams p{scale_layout(c), DType::kF32, {}};
  const int64_t n = p.layout.elements();
  const Ref in = is_small(x) ? widened_small(c, c.in(0), x, n) : c.in(0);
  c.step(fn, p, {c.out(0), in, scales_as_float(c, 1), zero_point(c)}, static_cast<double>(n));
}

// ---- DynamicQuantizeLinear: scale and zero point from the whole tensor's range, which is made to hold 0 -------------

struct DynamicParams {
  int64_t count;
};
void dynamic_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t n = static_cast<const DynamicParams*>(params)->count;
  const auto* x = reinterpret_cast<const float*>(io[3]);
  float low = 0, high = 0;
  for (int64_t i = 0; i < n; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  const float scale = high == low ? 1.0f : (high - low) / 255.0f;
  const auto zero = saturate<uint8_t>(-low / scale, 0);
  if (io[1]) *reinterpret_cast<float*>(io[1]) = scale;
  if (io[2]) *reinterpret_cast<uint8_t*>(io[2]) = zero;
  if (!io[0]) return;
  for (int64_t i = 0; i < n; ++i) reinterpret_cast<uint8_t*>(io[0])[i] = saturate<uint8_t>(x[i] / scale, zero);
}

void infer_dynamic(InferContext& c) {
  require_type(c, 0, types(DType::kF32));
  c.set_output(0, DType::kU8, c.input(0).shape);
  c.set_output(1, DType::kF32, {});
  c.set_output(2, DType::kU8, {});
}
void lower_dynamic(LowerContext& c) {
  const int64_t n = c.input(0).shape.elements();
  c.step(dynamic_step, DynamicParams{n}, {c.out(0), c.out(1), c.out(2), c.in(0)}, static_cast<double>(n) * 2);
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
         .infer = infer_dynamic},
        lower_dynamic);
}

}  // namespace inferkit
