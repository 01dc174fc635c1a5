// Pow: the type of the base is the type of the result. float32 and the half types run the kernel, float64, and integers
// with an exponent of floats, the C library's pow; a base of integers with an exponent of integers is computed exactly,
// modulo its width.
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/parallel.h"
#include "engine/ops/saturate.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit {
namespace {

template <class T>
T int_pow(T base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) throw Error(ErrorCode::kInference, "zero to a negative power is no integer");
    if (base == 1) return 1;
    if constexpr (std::is_signed_v<T>) {
      if (base == -1) return exponent % 2 == 0 ? T{1} : T{-1};
    }
    return 0;  // truncated
  }
  uint64_t result = 1, square = static_cast<uint64_t>(base);
  for (; exponent > 0; exponent >>= 1, square *= square) {
    if (exponent & 1) result *= square;
  }
  return static_cast<T>(result);
}

template <class T, class E>
T power(T base, E exponent) {
  if constexpr (std::is_integral_v<T> && std::is_integral_v<E>) {
    const auto limit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    const bool huge = exponent > 0 && static_cast<uint64_t>(exponent) > limit;  // of an even or odd exponent alike
    return int_pow(base, huge ? static_cast<int64_t>(limit - 1 + (static_cast<uint64_t>(exponent) & 1))
                              : static_cast<int64_t>(exponent));
  } else if constexpr (std::is_integral_v<T>) {
    return saturated<T>(std::pow(static_cast<double>(base), exponent));
  } else {
    return std::pow(base, exponent);
  }
}

constexpr int64_t kPowNanos = 20;  // of the C library; the kernel takes less

/// Bases that do not move along a row fill a block.
void kernel_loop(const BinaryRows& rows) {
  constexpr int64_t kBlock = 256;
  float base[kBlock];
  const kernels::VmathKernels& kernels = kernels::vmath_kernels();
  for_each_row<float, double, float>(rows, [&](const float* a, const double* b, float* y) {
    if (!rows.b_moves && rows.a_moves) return kernels.power_of_one(a, *b, y, rows.n);
    if (rows.a_moves) return kernels.power(a, b, y, rows.n);
    std::fill_n(base, std::min(kBlock, rows.n), *a);
    for (int64_t first = 0; first < rows.n; first += kBlock) {
      const int64_t n = std::min(kBlock, rows.n - first);
      rows.b_moves ? kernels.power(base, b + first, y + first, n) : kernels.power_of_one(base, *b, y + first, n);
    }
  });
}

template <class T, class E>
void pow_loop(const BinaryRows& rows) {
  const int64_t n = rows.n, sa = rows.a_moves, sb = rows.b_moves;
  for_each_row<T, E, T>(rows, [&](const T* a, const E* b, T* y) {
    for (int64_t i = 0; i < n; ++i) y[i] = power(a[i * sa], b[i * sb]);
  });
}

// Small exponents that models hold as constants. Squares are exact before the one rounding, cubes almost; each is what
// pow would give.
void square(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * x[i];
}
void cube(const float* x, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const double v = x[i];
    y[i] = static_cast<float>(v * v * v);
  }
}
void root(const float* x, float* y, int64_t n) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] == -kInf ? kInf : std::sqrt(x[i] + 0.0f);  // pow(-0, 0.5) is +0
}

struct SmallParams {
  void (*fn)(const float*, float*, int64_t);
  int64_t n;
};
void run_small(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const SmallParams*>(params);
  const auto* x = reinterpret_cast<const float*>(io[0]);
  auto* y = reinterpret_cast<float*>(io[1]);
  for_ranges(context, p.n, 1 << 16, [&](int64_t first, int64_t last) { p.fn(x + first, y + first, last - first); });
}

using SmallFn = void (*)(const float*, float*, int64_t);
SmallFn small_exponent(LowerContext& c) {
  const TensorFacts& e = c.input(1);
  if (c.input(0).dtype != DType::kF32 || !e.constant || e.shape.elements() != 1) return nullptr;
  if (!(c.input(0).shape == c.output(0).shape)) return nullptr;
  const double value = dispatch<kNumberTypes>(
      e.dtype, [&]<class E>() -> double { return static_cast<double>(load(*e.constant->as<E>())); });
  return value == 2 ? square : value == 3 ? cube : value == 0.5 ? root : nullptr;
}

constexpr TypeSet kBases = kFloatTypes | types(DType::kI32, DType::kI64);

void infer_pow(InferContext& c) {
  if (c.version() < 12) require_same_type(c, 0, 1);
  require_type(c, 0, kBases);
  require_type(c, 1, kNumberTypes);
  c.set_output(0, c.input(0).dtype, broadcast_inputs(c));
}

void lower_pow(LowerContext& c) {
  const Shape& y = c.output(0).shape;
  const auto elements = static_cast<double>(y.elements());
  if (c.input(0).shape == y) c.in_place(0, 0);
  if (const SmallFn fn = small_exponent(c)) {
    c.step(run_small, SmallParams{fn, y.elements()}, {c.in(0), c.out(0)}, elements * 0.3);
    return;
  }
  const DType base = c.input(0).dtype, exponent = c.input(1).dtype;
  const DType in = compute_type(base);
  const DType by = is_float(exponent) || is_float(base) ? DType::kF64
                   : exponent == DType::kU64            ? DType::kU64
                                                        : DType::kI64;
  const auto size_of = [](DType t) { return static_cast<int64_t>(dtype_size(t)); };
  BinaryParams params{
      binary_nest(c.input(0).shape, c.input(1).shape, y),
      kernel_loop,
      {size_of(base), size_of(exponent), size_of(base)},
      kPowNanos,
      {in == base ? nullptr : cast_elements(base, in), by == exponent ? nullptr : cast_elements(exponent, by),
       in == base ? nullptr : cast_elements(in, base)},
      {size_of(in), size_of(by), size_of(in)}};
  if (in == DType::kF64) {
    params.loop = pow_loop<double, double>;
  } else if (in != DType::kF32) {
    params.loop = dispatch<types(DType::kI32, DType::kI64)>(in, [&]<class T>() -> BinaryLoop {
      return dispatch<types(DType::kF64, DType::kI64, DType::kU64)>(
          by, []<class E>() -> BinaryLoop { return pow_loop<T, E>; });
    });
  }
  c.step(run_binary, params, {c.in(0), c.in(1), c.out(0)}, elements * kPowNanos);
}

}  // namespace

void register_pow(OpRegistry& r) {
  r.add({.name = "Pow", .since = 7, .min_inputs = 2, .max_inputs = 2, .max_outputs = 1, .infer = infer_pow}, lower_pow);
}

}  // namespace inferkit
