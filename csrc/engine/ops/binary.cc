// Arithmetic on two or more operands, broadcast: Add, Sub, Mul, Div, Mod, PRelu; Min, Max, Sum and Mean of any number.
// Integers wrap around; dividing them truncates, and by zero is an error of the run.
#include "kernels/cpu/binary/binary.h"

#include <cmath>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/elementwise.h"
#include "engine/ops/parallel.h"

namespace inferkit {
namespace {

using kernels::Binary;
using kernels::BinaryForm;

template <class T>
uint64_t wide(T v) {
  return static_cast<uint64_t>(v);  // integers wrap modulo 2^64 here, then modulo their own width
}

#define INFERKIT_OP(name, widening, integer, floating)        \
  struct name {                                               \
    static constexpr Widening kWidening = Widening::widening; \
    template <class T>                                        \
    static T apply(T a, T b) {                                \
      if constexpr (std::is_integral_v<T>) {                  \
        return static_cast<T>(integer);                       \
      } else {                                                \
        return floating;                                      \
      }                                                       \
    }                                                         \
  }
INFERKIT_OP(Add, kLowBits, wide(a) + wide(b), a + b);
INFERKIT_OP(Sub, kLowBits, wide(a) - wide(b), a - b);
INFERKIT_OP(Mul, kLowBits, wide(a) * wide(b), a* b);
INFERKIT_OP(Min, kValues, a < b ? a : b, a < b || a != a ? a : b);  // NaN where either is NaN
INFERKIT_OP(Max, kValues, a > b ? a : b, a > b || a != a ? a : b);
#undef INFERKIT_OP

struct Prelu {
  template <class T>
  static constexpr bool kScalar = std::is_integral_v<T>;
  template <class T>
  static T apply(T a, T b) {
    return a < 0 ? Mul::apply(a, b) : a;
  }
};

template <class T>
void check_divisor(T b) {
  if (b == 0) throw Error(ErrorCode::kInference, "integer division by zero");
}
// The most negative number over -1 does not fit; it wraps, where the CPU would trap.
template <class T>
bool is_minus_one(T b) {
  if constexpr (std::is_signed_v<T>) return b == -1;
  return false;
}

struct Div {
  template <class T>
  static constexpr bool kScalar = std::is_integral_v<T>;
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      check_divisor(b);
      return is_minus_one(b) ? static_cast<T>(0 - wide(a)) : static_cast<T>(a / b);
    } else {
      return a / b;
    }
  }
};

// The C library takes a step for each bit that the quotient has: up to microseconds, of doubles.
template <class T>
constexpr int64_t mod_nanos() {
  return std::is_integral_v<T> ? 2 : sizeof(T) == sizeof(double) ? 2000 : 200;
}

struct TruncatedMod {  // the sign of a
  template <class T>
  static constexpr bool kScalar = true;
  template <class T>
  static constexpr int64_t nanos() {
    return mod_nanos<T>();
  }
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      check_divisor(b);
      return is_minus_one(b) ? T{0} : static_cast<T>(a % b);
    } else {
      return std::fmod(a, b);
    }
  }
};

struct FlooredMod {  // the sign of b
  template <class T>
  static constexpr bool kScalar = true;
  template <class T>
  static constexpr int64_t nanos() {
    return mod_nanos<T>();
  }
  template <class T>
  static T apply(T a, T b) {
    const T m = TruncatedMod::apply(a, b);
    if constexpr (std::is_integral_v<T>) {
      return m != 0 && (m < 0) != (b < 0) ? static_cast<T>(m + b) : m;
    } else {
      if (m == 0) return std::copysign(T{0}, b);
      return (m < 0) != (b < 0) ? m + b : m;
    }
  }
};

struct KernelParams {
  LoopNest<3> nest;
  kernels::BinaryFn fn;
};

// One inner loop is one call of the kernel; its form was chosen with the nest.
void run_kernel(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const KernelParams*>(params);
  const auto* a = reinterpret_cast<const float*>(io[0]);
  const auto* b = reinterpret_cast<const float*>(io[1]);
  auto* y = reinterpret_cast<float*>(io[2]);
  constexpr int64_t kGrain = 1 << 15;  // elements
  const int64_t n = p.nest.inner(), runs = p.nest.runs();
  if (runs == 1) {
    const int64_t sa = p.nest.inner_stride(0), sb = p.nest.inner_stride(1);
    for_ranges(context, n, kGrain,
               [&](int64_t first, int64_t last) { p.fn(a + first * sa, b + first * sb, y + first, last - first); });
    return;
  }
  for_ranges(context, runs, n == 0 ? runs : kGrain / n, [&](int64_t first, int64_t last) {
    for_each_run(p.nest, first, last, [&](const auto& at, int64_t) { p.fn(a + at[0], b + at[1], y + at[2], n); });
  });
}

/// Operand a and the result, or one of them, are float where the node's type is a half type.
struct Widened {
  bool a = false, y = false;
};

/// The loop of a step of run_binary, which converts half types.
template <Binary kKernel>
void kernel_loop(const BinaryRows& rows) {
  const BinaryForm form = !rows.b_moves   ? BinaryForm::kVectorScalar
                          : !rows.a_moves ? BinaryForm::kScalarVector
                                          : BinaryForm::kVectorVector;
  const kernels::BinaryFn fn = kernels::binary_fn(kKernel, form);
  for_each_row<float, float, float>(rows, [&](const float* a, const float* b, float* y) { fn(a, b, y, rows.n); });
}

/// An operator: its kernel for float, which the half types take too, and what it has for other types.
struct Arithmetic {
  Binary kernel;
  BinaryLoop loop;
  BinaryParamsFn others;
};
template <class Op, Binary kKernel>
constexpr Arithmetic kArithmetic{kKernel, kernel_loop<kKernel>, binary_params<Op, kIntegerTypes | types(DType::kF64)>};
constexpr const Arithmetic& kAdd = kArithmetic<Add, Binary::kAdd>;
constexpr const Arithmetic& kSub = kArithmetic<Sub, Binary::kSub>;
constexpr const Arithmetic& kMul = kArithmetic<Mul, Binary::kMul>;
constexpr const Arithmetic& kDiv = kArithmetic<Div, Binary::kDiv>;
constexpr const Arithmetic& kPrelu = kArithmetic<Prelu, Binary::kPrelu>;
constexpr const Arithmetic& kMin = kArithmetic<Min, Binary::kMin>;
constexpr const Arithmetic& kMax = kArithmetic<Max, Binary::kMax>;

void add_step(LowerContext& c, const Arithmetic& op, const Shape& a, const Shape& b, const Shape& y,
              std::initializer_list<Ref> operands, Widened widened = {}) {
  const LoopNest<3> nest = binary_nest(a, b, y);
  const auto elements = static_cast<double>(y.elements());
  const DType dtype = c.input(0).dtype;
  if (dtype == DType::kF32) {
    const BinaryForm form = nest.inner_stride(1) == 0   ? BinaryForm::kVectorScalar
                            : nest.inner_stride(0) == 0 ? BinaryForm::kScalarVector
                                                        : BinaryForm::kVectorVector;
    c.step(run_kernel, KernelParams{nest, kernels::binary_fn(op.kernel, form)}, operands,
           elements * 0.1 + static_cast<double>(nest.runs()) * 3);
    return;
  }
  BinaryParams params{nest, op.loop, {}};
  if (dtype == DType::kF16 || dtype == DType::kBF16) {
    const CastFn widen = cast_elements(dtype, DType::kF32);
    params.sizes = {widened.a ? 4 : 2, 2, widened.y ? 4 : 2};
    params.casts = {widened.a ? nullptr : widen, widen, widened.y ? nullptr : cast_elements(DType::kF32, dtype)};
    params.loop_sizes.fill(sizeof(float));
  } else {
    params = op.others(dtype, nest);
  }
  if (!params.loop) c.unsupported(cat("inputs of type ", dtype_name(dtype)));
  c.step(run_binary, params, operands, elements);
}

template <const Arithmetic& op>
void lower_arithmetic(LowerContext& c) {
  offer_in_place(c, 2);
  add_step(c, op, c.input(0).shape, c.input(1).shape, c.output(0).shape, {c.in(0), c.in(1), c.out(0)});
}

bool truncates(const NodeContext& c) {
  const int64_t fmod = c.attr_int("fmod", 0);
  if (fmod != 0 && fmod != 1) c.fail("attribute 'fmod' must be 0 or 1");
  return fmod == 1;
}

void lower_mod(LowerContext& c) {
  const bool truncated = truncates(c);
  if (!truncated && c.version() < 28 && is_float(c.input(0).dtype)) {
    c.wrong("floats need fmod = 1 before opset 28");
  }
  return truncated ? lower_binary<TruncatedMod, kNumberTypes>(c) : lower_binary<FlooredMod, kNumberTypes>(c);
}

struct DivideParams {
  int64_t elements, count;
};

// y = sum / count, for Mean.
template <class T>
void run_divide(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& [elements, count] = *static_cast<const DivideParams*>(params);
  const auto* sum = reinterpret_cast<const Compute<T>*>(io[0]);
  T* y = reinterpret_cast<T*>(io[1]);
  in_blocks(elements, [&, n = static_cast<Compute<T>>(count)](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) y[i] = store<T>(sum[i] / n);
  });
}

// y = x0 op x1; y = y op x2; ... in this order. Sums of half types are held in float and rounded once; the greatest
// and the least of some are among them.
void lower_variadic(LowerContext& c, const Arithmetic& op, TypeSet set, bool mean = false) {
  require_type(c, 0, set);
  const size_t count = c.input_count();
  if (count == 1) return c.alias(0, 0);
  const Shape& y = c.output(0).shape;
  if (count == 2) {
    offer_in_place(c, 2);
  } else if (std::find(c.node().inputs.begin() + 1, c.node().inputs.end(), c.node().inputs[0]) ==
             c.node().inputs.end()) {
    offer_in_place(c, 1);  // the first input alone: the others are still read when y is written
  }
  const DType dtype = c.input(0).dtype, held = op.kernel == Binary::kAdd ? compute_type(dtype) : dtype;
  // What is so far, which may be smaller than y until the input that broadcasts it comes.
  Shape shape = c.input(0).shape;
  Ref sum = c.in(0);
  for (size_t i = 1; i < count; ++i) {
    const bool last = i + 1 == count;
    const Shape& other = c.input(i).shape;
    const Shape next = last ? y : *broadcast(shape, other);
    const Widened widened{held != dtype && i > 1, held != dtype && !(last && !mean)};
    const Ref to = next == y && !widened.y ? c.out(0) : c.scratch(TensorView{held, next, nullptr}.bytes());
    add_step(c, op, shape, other, next, {sum, c.in(i), to}, widened);
    shape = next;
    sum = to;
  }
  if (!mean) return;
  const StepFn fn = dispatch<kFloatTypes>(dtype, []<class T>() -> StepFn { return run_divide<T>; });
  c.step(fn, DivideParams{y.elements(), static_cast<int64_t>(count)}, {sum, c.out(0)},
         static_cast<double>(y.elements()));
}

void lower_min(LowerContext& c) { lower_variadic(c, kMin, kNumberTypes); }
void lower_max(LowerContext& c) { lower_variadic(c, kMax, kNumberTypes); }
void lower_sum(LowerContext& c) { lower_variadic(c, kAdd, kFloatTypes); }
void lower_mean(LowerContext& c) { lower_variadic(c, kAdd, kFloatTypes, true); }

void infer_arithmetic(InferContext& c) {
  for (size_t i = 1; i < c.input_count(); ++i) require_same_type(c, 0, i);
  c.set_output(0, c.input(0).dtype, broadcast_inputs(c));
}

void infer_mod(InferContext& c) {
  truncates(c);
  infer_arithmetic(c);
}

void infer_prelu(InferContext& c) {
  infer_arithmetic(c);
  if (!(c.output(0).shape == c.input(0).shape)) {
    c.fail(cat("slope ", c.input(1).shape.str(), " does not broadcast to ", c.input(0).shape.str()));
  }
}

OpSchema schema(std::string_view name, int since, int inputs, InferFn infer) {
  return {.name = name,
          .since = since,
          .min_inputs = inputs == 2 ? 2 : 1,
          .max_inputs = inputs,
          .max_outputs = 1,
          .infer = infer};
}

}  // namespace

void register_binary(OpRegistry& r) {
  constexpr int kMany = 1'000'000;
  r.add(schema("Add", 7, 2, infer_arithmetic), lower_arithmetic<kAdd>);
  r.add(schema("Sub", 7, 2, infer_arithmetic), lower_arithmetic<kSub>);
  r.add(schema("Mul", 7, 2, infer_arithmetic), lower_arithmetic<kMul>);
  r.add(schema("Div", 7, 2, infer_arithmetic), lower_arithmetic<kDiv>);
  r.add(schema("PRelu", 7, 2, infer_prelu), lower_arithmetic<kPrelu>);
  r.add(schema("Mod", 10, 2, infer_mod), lower_mod);
  r.add(schema("Min", 6, kMany, infer_arithmetic), lower_min);
  r.add(schema("Max", 6, kMany, infer_arithmetic), lower_max);
  r.add(schema("Sum", 6, kMany, infer_arithmetic), lower_sum);
  r.add(schema("Mean", 6, kMany, infer_arithmetic), lower_mean);
}

}  // namespace inferkit
