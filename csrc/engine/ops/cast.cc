// Cast and CastLike between all types but strings.
//
// Where ONNX leaves the result open it is fixed here, the same on every machine: a float outside of the range of an
// integer type saturates, and NaN becomes 0; one of 4 or 2 bits gets the lowest bits of the whole part, as it would of
// that as an integer. Integers wrap; a float too large for the new float type becomes infinite (8 bits: as the
// attribute `saturate` says); anything that is not 0 (NaN too) is true. Every conversion rounds once.
#include <array>
#include <bit>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/cast_elements.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/common/small_convert.h"
#include "engine/ops/common/text_cast.h"
#include "engine/ops/dispatch.h"
#include "graph/onnx_tensor.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

struct CastParams {
  int64_t n;
};

// What a small float is then made of: `v` where a float holds it, else a float that rounds to the same one.
template <class From>
void run_to_odd(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t n = static_cast<const CastParams*>(params)->n;
  const From* x = reinterpret_cast<const From*>(io[0]);
  in_blocks(n, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      float& y = reinterpret_cast<float*>(io[1])[i];
      if constexpr (std::is_same_v<From, double>)
        y = to_odd_float(x[i]);
      else if constexpr (std::is_integral_v<From>)
        y = to_odd_float(to_odd_double(x[i]));
      else
        y = load(x[i]);
    }
  });
}

constexpr std::array<double, 256> kPowersOfTwo = [] {
  std::array<double, 256> values{};
  for (size_t byte = 0; byte < 255; ++byte) values[byte] = std::bit_cast<double>(uint64_t{byte - 127 + 1023} << 52);
  values[255] = std::numeric_limits<double>::quiet_NaN();
  return values;
}();

/// E8M0 as doubles: its smallest is a subnormal float, which a conversion would take for zero.
void run_power_to_double(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t n = static_cast<const CastParams*>(params)->n;
  const auto* x = reinterpret_cast<const uint8_t*>(io[0]);
  in_blocks(n, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) reinterpret_cast<double*>(io[1])[i] = kPowersOfTwo[x[i]];
  });
}

SmallRounding rounding_of(const NodeContext& c) {
  SmallRounding rounding;
  rounding.saturate = c.version() < 19 || c.attr_int("saturate", 1) != 0;
  const std::string mode = c.version() >= 24 ? c.attr_string("round_mode", "up") : "up";
  if (mode == "down")
    rounding.power = PowerRounding::kDown;
  else if (mode == "nearest")
    rounding.power = PowerRounding::kNearest;
  else if (mode != "up")
    c.fail(cat("round_mode is '", mode, "'; expected up, down or nearest"));
  return rounding;
}

void infer_cast(InferContext& c) {
  const int64_t code = c.attr_int("to", 0);
  const auto to = onnx::dtype_of(static_cast<int32_t>(code));
  if (!to) c.unsupported("a cast to " + onnx::dtype_text(static_cast<int32_t>(code)));
  rounding_of(c);
  c.set_output(0, *to, c.input(0).shape);
}

void infer_cast_like(InferContext& c) {
  rounding_of(c);
  c.set_output(0, c.input(1).dtype, c.input(0).shape);
}

/// From a type that is not small to one that is.
void lower_to_small(LowerContext& c, Ref in, DType from, DType to, int64_t n) {
  const DType carrier = carrier_of(to);
  if (is_small_float(to)) {
    const StepFn fn = dispatch<kAllTypes>(from, []<class From>() -> StepFn { return run_to_odd<From>; });
    if (!fn) c.unsupported(cat("a cast from ", dtype_name(from), " to ", dtype_name(to)));
    if (from != carrier) {
      const Ref odd = c.scratch(static_cast<size_t>(n) * sizeof(float));
      c.step(fn, CastParams{n}, {in, odd}, static_cast<double>(n));
      in = odd;
    }
  } else {
    // By way of 32 bits: the lowest ones of a float's whole part.
    if (is_float(from)) {
      const Ref whole = c.scratch(static_cast<size_t>(n) * sizeof(int32_t));
      lower_convert(c, in, from, whole, DType::kI32, n);
      in = whole;
      from = DType::kI32;
    }
    const Ref carried = c.scratch(static_cast<size_t>(n));
    lower_convert(c, in, from, carried, carrier, n);
    in = carried;
  }
  lower_narrow_small(c, in, c.out(0), to, rounding_of(c), n);
}

void lower_cast(LowerContext& c) {
  DType from = c.input(0).dtype;
  const DType to = c.output(0).dtype;
  if (from == to) return c.alias(0, 0);
  const int64_t n = c.output(0).shape.elements();
  Ref in = c.in(0);
  if (from == DType::kString && !is_small(to)) return lower_from_text(c, in, c.out(0), to, n);
  if (from == DType::kString) {
    from = is_small_float(to) ? DType::kF32 : DType::kI32;
    const Ref number = c.scratch(static_cast<size_t>(n) * dtype_size(from));
    lower_from_text(c, in, number, from, n);
    return lower_to_small(c, number, from, to, n);
  }
  if (from == DType::kF8E8M0 && (to == DType::kF64 || !is_float(to)) && !is_small(to)) {
    const Ref wide = c.scratch(static_cast<size_t>(n) * sizeof(double));
    c.step(run_power_to_double, CastParams{n}, {in, wide}, static_cast<double>(n));
    in = wide;
    from = DType::kF64;
  } else if (is_small(from)) {
    in = widened_small(c, in, from, n);
    from = carrier_of(from);
  } else if (!is_small(to) && dtype_size(from) == dtype_size(to)) {
    c.in_place(0, 0);
  }
  if (to == DType::kString)
    lower_to_text(c, in, from, c.out(0), n);
  else if (is_small(to))
    lower_to_small(c, in, from, to, n);
  else
    lower_convert(c, in, from, c.out(0), to, n);
}

}  // namespace

void register_cast(OpRegistry& r) {
  r.add({.name = "Cast", .since = 6, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_cast},
        lower_cast);
  r.add({.name = "CastLike", .since = 15, .min_inputs = 2, .max_inputs = 2, .max_outputs = 1, .infer = infer_cast_like},
        lower_cast);
}

}  // namespace inferkit
