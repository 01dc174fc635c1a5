#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {

INFERKIT_KERNEL(unary_f32, UnaryParams, 256, 4) {
  for (int64_t i = first_element(); i < p.n; i += element_step()) p.y[i] = apply_unary(p.op, p.x[i], p.alpha, p.beta);
}

INFERKIT_KERNEL(elementary_f32, UnaryParams, 256, 4) {
  for (int64_t i = first_element(); i < p.n; i += element_step()) p.y[i] = apply_elementary(p.op, p.x[i]);
}

INFERKIT_KERNEL(power_f32, PowerParams, 256, 4) {
  for (int64_t i = first_element(); i < p.nest.n; i += element_step()) {
    int64_t at[2];
    offsets_of(p.nest, i, at);
    p.y[i] = power<true>(p.x[at[0]], p.e ? widened(p.e[at[1]]) : p.exponent);
  }
}

namespace {

INFERKIT_DEVICE float apply_link(Link op, float a, float b, float low, float high) {
  switch (op) {
    case Link::kAdd:
      return apply_binary(Binary::kAdd, a, b);
    case Link::kSub:
      return apply_binary(Binary::kSub, a, b);
    case Link::kMul:
      return apply_binary(Binary::kMul, a, b);
    case Link::kDiv:
      return apply_binary(Binary::kDiv, a, b);
    case Link::kRelu:
      return apply_unary(Unary::kRelu, a, low, high);
    case Link::kSigmoid:
      return apply_unary(Unary::kSigmoid, a, low, high);
    case Link::kTanh:
      return apply_unary(Unary::kTanh, a, low, high);
    case Link::kClip:
      return apply_unary(Unary::kClip, a, low, high);
  }
  return a;
}

/// By comparisons: an index that is known at run time alone would put the registers into memory.
INFERKIT_DEVICE float link_operand(int8_t where, float number, float x, const float (&registers)[kLinkRegisters]) {
  float out = where == ChainLinkParams::kNumber ? number : x;
#pragma unroll
  for (int r = 0; r < kLinkRegisters; ++r) out = where == r ? registers[r] : out;
  return out;
}

}  // namespace

INFERKIT_KERNEL(chain_f32, ChainParams, 256, 4) {
  for (int64_t i = first_element(); i < p.n; i += element_step()) {
    const float x = p.x[i];
    float registers[kLinkRegisters] = {}, y = x;
#pragma unroll 1
    for (int32_t k = 0; k < p.count; ++k) {
      const ChainLinkParams& link = p.links[k];
      const float a = link_operand(link.a, link.numbers[0], x, registers);
      const float b = link_operand(link.b, link.numbers[1], x, registers);
      y = apply_link(link.op, a, b, link.numbers[0], link.numbers[1]);
#pragma unroll
      for (int r = 0; r < kLinkRegisters; ++r) registers[r] = link.to == r ? y : registers[r];
    }
    p.y[i] = y;
  }
}

namespace {

template <class T>
INFERKIT_DEVICE void cut(const BoundsParams& p, int64_t i) {
  T v = static_cast<const T*>(p.x)[i];
  if (p.low && v < *static_cast<const T*>(p.low)) v = *static_cast<const T*>(p.low);
  if (p.high && v > *static_cast<const T*>(p.high)) v = *static_cast<const T*>(p.high);
  static_cast<T*>(p.y)[i] = v;
}
INFERKIT_DEVICE float bound_of(const void* at, float none) { return at ? *static_cast<const float*>(at) : none; }

}  // namespace

INFERKIT_KERNEL(cut_to_bounds, BoundsParams, 256, 4) {
  for (int64_t i = first_element(); i < p.n; i += element_step()) {
    if (p.type == Element::kF32) {
      const float infinity = __builtin_inff(), low = bound_of(p.low, -infinity), high = bound_of(p.high, infinity);
      const float v = apply_unary(Unary::kClip, static_cast<const float*>(p.x)[i], low, high);
      static_cast<float*>(p.y)[i] = low != low || high != high ? __builtin_nanf("") : v;
    } else if (p.type == Element::kI64) {
      cut<int64_t>(p, i);
    } else {
      cut<int32_t>(p, i);
    }
  }
}

INFERKIT_KERNEL(binary_f32, BinaryParams, 256, 4) {
  for (int64_t i = first_element(); i < p.nest.n; i += element_step()) {
    int64_t at[2];
    offsets_of(p.nest, i, at);
    p.y[i] = apply_binary(p.op, p.a[at[0]], p.b[at[1]]);
  }
}

namespace {

template <class T>
INFERKIT_DEVICE bool compared(Compare op, T a, T b) {
  switch (op) {
    case Compare::kEqual:
      return a == b;
    case Compare::kLess:
      return a < b;
    case Compare::kLessOrEqual:
      return a <= b;
    case Compare::kGreater:
      return a > b;
    case Compare::kGreaterOrEqual:
      return a >= b;
  }
  return false;
}
template <class T>
INFERKIT_DEVICE bool compared(const CompareParams& p, int64_t a, int64_t b) {
  return compared(p.op, static_cast<const T*>(p.a)[a], static_cast<const T*>(p.b)[b]);
}

}  // namespace

INFERKIT_KERNEL(compare, CompareParams, 256, 4) {
  for (int64_t i = first_element(); i < p.nest.n; i += element_step()) {
    int64_t at[2];
    offsets_of(p.nest, i, at);
    bool out = false;
    switch (p.type) {
      case Element::kF32:
        out = compared<float>(p, at[0], at[1]);
        break;
      case Element::kI32:
        out = compared<int32_t>(p, at[0], at[1]);
        break;
      case Element::kI64:
        out = compared<int64_t>(p, at[0], at[1]);
        break;
      case Element::kBool:
        out = static_cast<const bool*>(p.a)[at[0]] == static_cast<const bool*>(p.b)[at[1]];
        break;
    }
    p.y[i] = out;
  }
}

INFERKIT_KERNEL(classify, ClassifyParams, 256, 4) {
  const float infinity = __builtin_inff();
  for (int64_t i = first_element(); i < p.n; i += element_step()) {
    const float x = p.x[i];
    p.y[i] = (p.nan && x != x) || (p.infinity && x == infinity) || (p.minus_infinity && x == -infinity);
  }
}

INFERKIT_KERNEL(scan_f32, ScanParams, 256, 4) {
  const float infinity = __builtin_inff();
  bool found = false;
  for (int64_t i = first_element(); i < p.n; i += element_step()) {
    const float x = p.x[i];
    found |= (!p.nan && x != x) || (!p.infinity && x == infinity) || (!p.minus_infinity && x == -infinity);
  }
  if (found) *p.found = 1;  // whoever comes, it is the same word
}

namespace {

template <class T>
INFERKIT_DEVICE void copy_element(void* to, int64_t i, const void* from, int64_t j) {
  static_cast<T*>(to)[i] = static_cast<const T*>(from)[j];
}

}  // namespace

INFERKIT_KERNEL(select, SelectParams, 256, 4) {
  for (int64_t i = first_element(); i < p.nest.n; i += element_step()) {
    int64_t at[3];
    offsets_of(p.nest, i, at);
    const bool first = p.condition[at[0]];
    const void* from = first ? p.a : p.b;
    const int64_t j = first ? at[1] : at[2];
    if (p.width == 4) {
      copy_element<uint32_t>(p.y, i, from, j);
    } else if (p.width == 8) {
      copy_element<uint64_t>(p.y, i, from, j);
    } else if (p.width == 2) {
      copy_element<uint16_t>(p.y, i, from, j);
    } else {
      copy_element<uint8_t>(p.y, i, from, j);
    }
  }
}

namespace {

/// A number of `from`, as one of the two types that hold all of them.
struct Number {
  bool is_float;
  float real;
  int64_t whole;
};

INFERKIT_DEVICE Number number_at(const void* x, Element type, int64_t i) {
  switch (type) {
    case Element::kF32:
      return {true, static_cast<const float*>(x)[i], 0};
    case Element::kI32:
      return {false, 0, static_cast<const int32_t*>(x)[i]};
    case Element::kI64:
      return {false, 0, static_cast<const int64_t*>(x)[i]};
    case Element::kBool:
      break;
  }
  return {false, 0, static_cast<const bool*>(x)[i] ? 1 : 0};
}

/// Truncated; the nearest that there is where it does not fit, 0 for NaN. `above` is the first that does not.
template <class T>
INFERKIT_DEVICE T saturated(float v, float above, T most, T least) {
  if (v >= above) return most;
  if (v > -above) return static_cast<T>(v);
  return v != v ? T{0} : least;
}

INFERKIT_DEVICE void put_number(void* y, Element type, int64_t i, const Number& v) {
  switch (type) {
    case Element::kF32:
      static_cast<float*>(y)[i] = v.is_float ? v.real : static_cast<float>(v.whole);
      break;
    case Element::kI32:
      static_cast<int32_t*>(y)[i] = v.is_float
                                        ? saturated<int32_t>(v.real, 0x1p+31f, INT32_MAX, INT32_MIN)
                                        : static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(v.whole)));
      break;
    case Element::kI64:
      static_cast<int64_t*>(y)[i] = v.is_float ? saturated<int64_t>(v.real, 0x1p+63f, INT64_MAX, INT64_MIN) : v.whole;
      break;
    case Element::kBool:
      static_cast<bool*>(y)[i] = v.is_float ? v.real != 0 : v.whole != 0;
      break;
  }
}

}  // namespace

INFERKIT_KERNEL(cast, CastParams, 256, 4) {
  for (int64_t i = first_element(); i < p.n; i += element_step()) put_number(p.y, p.to, i, number_at(p.x, p.from, i));
}

}  // namespace inferkit::kernels::cuda
