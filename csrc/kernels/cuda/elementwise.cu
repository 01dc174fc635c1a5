#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

/// Whether 16 divides the addresses.
template <class... T>
INFERKIT_DEVICE bool aligned(const T*... at) {
  return ((reinterpret_cast<uintptr_t>(at) | ...) & 15) == 0;
}

/// Four neighbours, of which `left` are there; side by side where `whole`.
INFERKIT_DEVICE float4 read_four(const float* at, int64_t left, bool whole) {
  if (whole && left >= 4) return load4(at);
  return {at[0], left > 1 ? at[1] : 0, left > 2 ? at[2] : 0, left > 3 ? at[3] : 0};
}
INFERKIT_DEVICE void write_four(float* at, const float4& v, int64_t left, bool whole) {
  if (whole && left >= 4) return store4(at, v);
  at[0] = v.x;
  if (left > 1) at[1] = v.y;
  if (left > 2) at[2] = v.z;
  if (left > 3) at[3] = v.w;
}

/// y[i] = f(x[i]), four neighbours at a time.
template <class F>
INFERKIT_DEVICE void map_fours(const float* x, float* y, int64_t n, F f) {
  const bool whole = aligned(x, y);
  for (int64_t i = 4 * first_element(); i < n; i += 4 * element_step()) {
    const float4 v = read_four(x + i, n - i, whole);
    write_four(y + i, {f(v.x), f(v.y), f(v.z), f(v.w)}, n - i, whole);
  }
}

}  // namespace

INFERKIT_KERNEL(unary_f32, UnaryParams, 256, 6) {
  with_unary(p.op, p.alpha, p.beta, [&](auto f) { map_fours(p.x, p.y, p.n, [&](float v) { return f(F32x16{v}).v; }); });
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

INFERKIT_DEVICE float4 apply_link(const ChainLinkParams& link, const float4& a, const float4& b) {
  const auto of = [&](float v, float w) { return apply_link(link.op, v, w, link.numbers[0], link.numbers[1]); };
  return {of(a.x, b.x), of(a.y, b.y), of(a.z, b.z), of(a.w, b.w)};
}

/// By comparisons: an index that is known at run time alone would put the registers into memory.
INFERKIT_DEVICE float4 choose(bool first, const float4& a, const float4& b) {
  return {first ? a.x : b.x, first ? a.y : b.y, first ? a.z : b.z, first ? a.w : b.w};
}
INFERKIT_DEVICE float4 link_operand(int8_t where, float number, const float4& x,
                                    const float4 (&registers)[kLinkRegisters]) {
  float4 out = choose(where == ChainLinkParams::kNumber, {number, number, number, number}, x);
#pragma unroll
  for (int r = 0; r < kLinkRegisters; ++r) out = choose(where == r, registers[r], out);
  return out;
}

}  // namespace

INFERKIT_KERNEL(chain_f32, ChainParams, 256, 4) {
  const bool whole = aligned(p.x, p.y);
  for (int64_t i = 4 * first_element(); i < p.n; i += 4 * element_step()) {
    const float4 x = read_four(p.x + i, p.n - i, whole);
    float4 registers[kLinkRegisters] = {}, y = x;
#pragma unroll 1
    for (int32_t k = 0; k < p.count; ++k) {
      const ChainLinkParams& link = p.links[k];
      y = apply_link(link, link_operand(link.a, link.numbers[0], x, registers),
                     link_operand(link.b, link.numbers[1], x, registers));
#pragma unroll
      for (int r = 0; r < kLinkRegisters; ++r) registers[r] = choose(link.to == r, y, registers[r]);
    }
    write_four(p.y + i, y, p.n - i, whole);
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

namespace {

/// Elements i to i + 3 of an operand: neighbours, or one and the same.
INFERKIT_DEVICE float4 read_four(const float* at, int64_t stride) {
  if (stride == 0) return {*at, *at, *at, *at};
  return load4(at);
}

}  // namespace

INFERKIT_KERNEL(binary_f32, BinaryParams, 256, 4) {
  const int last = p.nest.rank - 1;
  const int64_t a_stride = p.nest.strides[0][last], b_stride = p.nest.strides[1][last];
  const bool by_fours =
      p.nest.by_fours && aligned(p.y) && (a_stride == 0 || aligned(p.a)) && (b_stride == 0 || aligned(p.b));
  const int64_t fours = by_fours ? p.nest.n / 4 : 0;
  with_binary(p.op, [&](auto f) {
    const auto of = [&](float a, float b) { return f(F32x16{a}, F32x16{b}).v; };
#pragma unroll 1
    for (int64_t i = first_element(); i < fours; i += element_step()) {
      int64_t at[2];
      offsets_of(p.nest, 4 * i, at);
      const float4 a = read_four(p.a + at[0], a_stride), b = read_four(p.b + at[1], b_stride);
      store4(p.y + 4 * i, {of(a.x, b.x), of(a.y, b.y), of(a.z, b.z), of(a.w, b.w)});
    }
#pragma unroll 1
    for (int64_t i = 4 * fours + first_element(); i < p.nest.n; i += element_step()) {
      int64_t at[2];
      offsets_of(p.nest, i, at);
      p.y[i] = of(p.a[at[0]], p.b[at[1]]);
    }
  });
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
  const auto bad = [&](float x) {
    return (!p.nan && x != x) || (!p.infinity && x == infinity) || (!p.minus_infinity && x == -infinity);
  };
  const bool whole = aligned(p.x);
  bool found = false;
  for (int64_t i = 4 * first_element(); i < p.n; i += 4 * element_step()) {
    const float4 v = read_four(p.x + i, p.n - i, whole);
    found |= bad(v.x) || bad(v.y) || bad(v.z) || bad(v.w);
  }
  if (found) *p.found = 1;  // whoever comes, it is the same word
}

namespace {

template <class T>
INFERKIT_DEVICE void copy_element(void* to, int64_t i, const void* from, int64_t j) {
  static_cast<T*>(to)[i] = static_cast<const T*>(from)[j];
}

}  // namespace

namespace {

INFERKIT_DEVICE uint4 units_at(const void* x, int64_t at, int64_t stride) {
  const auto* const first = static_cast<const uint32_t*>(x) + at;
  if (stride == 0) return {*first, *first, *first, *first};
  return load_as<uint4>(first);
}
/// Elements i to i + 3, of units of four bytes.
INFERKIT_DEVICE void select_four(const SelectParams& p, int64_t i, const int64_t (&strides)[3]) {
  int64_t at[3];
  offsets_of(p.nest, i, at);
  const uint32_t condition = strides[0] == 0 ? (p.condition[at[0]] ? ~0u : 0) : load_as<uint32_t>(p.condition + at[0]);
  const uint4 a = units_at(p.a, at[1], strides[1]), b = units_at(p.b, at[2], strides[2]);
  const auto choose = [&](int j, uint32_t v, uint32_t w) { return (condition >> 8 * j & 0xff) != 0 ? v : w; };
  const uint4 y{choose(0, a.x, b.x), choose(1, a.y, b.y), choose(2, a.z, b.z), choose(3, a.w, b.w)};
  store_as(static_cast<uint32_t*>(p.y) + i, y);
}

}  // namespace

INFERKIT_KERNEL(select, SelectParams, 256, 4) {
  const int last = p.nest.rank - 1;
  const int64_t strides[3] = {p.nest.strides[0][last], p.nest.strides[1][last], p.nest.strides[2][last]};
  const bool by_fours = p.width == 4 && p.nest.by_fours && aligned(p.y) && (strides[0] == 0 || aligned(p.condition)) &&
                        (strides[1] == 0 || aligned(p.a)) && (strides[2] == 0 || aligned(p.b));
  const int64_t fours = by_fours ? p.nest.n / 4 : 0;
  for (int64_t i = first_element(); i < fours; i += element_step()) select_four(p, 4 * i, strides);
  for (int64_t i = 4 * fours + first_element(); i < p.nest.n; i += element_step()) {
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
