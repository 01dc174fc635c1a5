// Comparisons, logic and bits: two operands, broadcast.
#include "base/string_dtype.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/elementwise.h"

namespace inferkit {
namespace {

#define INFERKIT_OP(name, widening, expression)               \
  struct name {                                               \
    static constexpr Widening kWidening = Widening::widening; \
    template <class T>                                        \
    static auto apply(T a, T b) {                             \
      return expression;                                      \
    }                                                         \
  }
INFERKIT_OP(Equal, kLowBits, a == b);
INFERKIT_OP(Less, kValues, a < b);
INFERKIT_OP(LessOrEqual, kValues, a <= b);
INFERKIT_OP(And, kNone, a&& b);
INFERKIT_OP(Or, kNone, a || b);
INFERKIT_OP(Xor, kNone, a != b);
INFERKIT_OP(BitAnd, kLowBits, static_cast<T>(a& b));
INFERKIT_OP(BitOr, kLowBits, static_cast<T>(a | b));
INFERKIT_OP(BitXor, kLowBits, static_cast<T>(a ^ b));
#undef INFERKIT_OP

// A shift by a negative amount or by all the bits leaves what the fill leaves: 0, or -1 to the right of a negative
// number.
template <class T>
bool in_width(T shift) {
  return shift >= 0 && static_cast<uint64_t>(shift) < sizeof(T) * 8;
}
struct ShiftLeft {
  static constexpr Widening kWidening = Widening::kNone;
  template <class T>
  static constexpr bool kScalar = true;
  template <class T>
  static T apply(T a, T b) {
    return in_width(b) ? static_cast<T>(static_cast<uint64_t>(a) << static_cast<uint64_t>(b)) : T{0};
  }
};
struct ShiftRight {
  static constexpr Widening kWidening = Widening::kNone;
  template <class T>
  static constexpr bool kScalar = true;
  template <class T>
  static T apply(T a, T b) {
    return in_width(b) ? static_cast<T>(a >> b) : static_cast<T>(a < T{0} ? -1 : 0);
  }
};

void infer_compare(InferContext& c) {
  require_same_type(c, 0, 1);
  c.set_output(0, DType::kBool, broadcast_inputs(c));
}

void infer_bits(InferContext& c) {
  require_same_type(c, 0, 1);
  c.set_output(0, c.input(0).dtype, broadcast_inputs(c));
}

bool shifts_left(const NodeContext& c) {
  const std::string direction = c.attr_string("direction", "");
  if (direction != "LEFT" && direction != "RIGHT") c.fail("direction '" + direction + "' is neither LEFT nor RIGHT");
  return direction == "LEFT";
}

void infer_shift(InferContext& c) {
  shifts_left(c);
  if (c.version() < 28) require_type(c, 0, kUnsignedTypes);
  infer_bits(c);
}

void lower_shift(LowerContext& c) {
  return shifts_left(c) ? lower_binary<ShiftLeft, kIntegerTypes>(c) : lower_binary<ShiftRight, kIntegerTypes>(c);
}

void lower_equal(LowerContext& c) {
  if (c.input(0).dtype != DType::kString) return lower_binary<Equal, kAllTypes>(c);
  const Shape& y = c.output(0).shape;
  const BinaryParams params{binary_nest(c.input(0).shape, c.input(1).shape, y),
                            binary_loop<Equal, std::string_view>,
                            {sizeof(std::string_view), sizeof(std::string_view), sizeof(bool)},
                            /*nanos=*/10};
  c.step(run_binary, params, {c.in(0), c.in(1), c.out(0)}, 10 * static_cast<double>(y.elements()));
}

void add(OpRegistry& r, std::string_view name, int since, InferFn infer, LowerFn lower) {
  r.add({.name = name, .since = since, .min_inputs = 2, .max_inputs = 2, .max_outputs = 1, .infer = infer}, lower);
}

}  // namespace

void register_compare(OpRegistry& r) {
  add(r, "Equal", 7, infer_compare, lower_equal);
  add(r, "Less", 7, infer_compare, lower_binary<Less, kNumberTypes>);
  add(r, "LessOrEqual", 12, infer_compare, lower_binary<LessOrEqual, kNumberTypes>);
  add(r, "Greater", 7, infer_compare, lower_binary<Less, kNumberTypes, Order::kSwapped>);
  add(r, "GreaterOrEqual", 12, infer_compare, lower_binary<LessOrEqual, kNumberTypes, Order::kSwapped>);
  add(r, "And", 7, infer_compare, lower_binary<And, kBoolType>);
  add(r, "Or", 7, infer_compare, lower_binary<Or, kBoolType>);
  add(r, "Xor", 7, infer_compare, lower_binary<Xor, kBoolType>);
  add(r, "BitwiseAnd", 18, infer_bits, lower_binary<BitAnd, kIntegerTypes>);
  add(r, "BitwiseOr", 18, infer_bits, lower_binary<BitOr, kIntegerTypes>);
  add(r, "BitwiseXor", 18, infer_bits, lower_binary<BitXor, kIntegerTypes>);
  add(r, "BitShift", 11, infer_shift, lower_shift);
}

}  // namespace inferkit
