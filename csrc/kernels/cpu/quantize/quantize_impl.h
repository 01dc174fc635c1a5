// Quantisation of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/quantize/bytes.h"
#include "kernels/cpu/quantize/quantize.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// Where a block of lanes lies: sixteen elements at `i`, or the first `n` of fewer.
struct Whole {
  int64_t i;
};
struct First {
  int64_t n;
};

/// How to read an operand at either: one value for all, or an array.
struct Same {
  F32x16 v;
  template <class Where>
  INFERKIT_MEMBER F32x16 operator()(Where) const {
    return v;
  }
};
INFERKIT_INLINE Same same(float v) { return {broadcast(v)}; }
struct SameBits {
  uint32_t v;
  template <class Where>
  INFERKIT_MEMBER I32x16 operator()(Where) const {
    I32x16 r;
    INFERKIT_EACH_PART r.p[i] = (NativeInt)(v - NativeBits{});
    return r;
  }
};
template <class T>
struct Array {
  const T* x;
  INFERKIT_MEMBER auto operator()(Whole at) const { return load_whole(x + at.i); }
  INFERKIT_MEMBER auto operator()(First at) const { return load_first(x, at.n); }
};
template <class T>
Array(const T*) -> Array<T>;
template <class T>
struct Numbers {  // an array of integers, as float
  const T* x;
  template <class Where>
  INFERKIT_MEMBER F32x16 operator()(Where at) const {
    return to_float(Array{x}(at));
  }
};
template <class T>
Numbers(const T*) -> Numbers<T>;

/// y = f(where). The last block overlaps the one before where n is no multiple of sixteen.
template <class Y, class F>
INFERKIT_INLINE void map(Y* y, int64_t n, F f) {
  if (n < kLanes) {
    if (n > 0) store_first(y, f(First{n}), n);
    return;
  }
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_whole(y + i, f(Whole{i}));
  if (i < n) store_whole(y + n - kLanes, f(Whole{n - kLanes}));
}

template <class B, class Scale, class Zero>
INFERKIT_INLINE void quantize_by(const float* x, B* y, int64_t n, Scale scale, Zero zero) {
  map(y, n, [=](auto at) INFERKIT_LAMBDA { return to_codes<B>(Array{x}(at) / scale(at), zero(at)); });
}
template <class B>
void quantize(const float* x, B* y, int64_t n, float scale, int32_t zero) {
  quantize_by(x, y, n, same(scale), same(static_cast<float>(zero)));
}
template <class B>
void quantize_each(const float* x, B* y, int64_t n, const float* scale, const B* zero) {
  if (zero)
    quantize_by(x, y, n, Array{scale}, Numbers{zero});
  else
    quantize_by(x, y, n, Array{scale}, same(0));
}

// Floats hold a difference of bytes exactly.
template <class B, class Scale, class Zero>
INFERKIT_INLINE void dequantize_by(const B* x, float* y, int64_t n, Scale scale, Zero zero) {
  map(y, n, [=](auto at) INFERKIT_LAMBDA { return (Numbers{x}(at)-zero(at)) * scale(at); });
}
template <class B>
void dequantize(const B* x, float* y, int64_t n, float scale, int32_t zero) {
  dequantize_by(x, y, n, same(scale), same(static_cast<float>(zero)));
}
template <class B>
void dequantize_each(const B* x, float* y, int64_t n, const float* scale, const B* zero) {
  if (zero)
    dequantize_by(x, y, n, Array{scale}, Numbers{zero});
  else
    dequantize_by(x, y, n, Array{scale}, same(0));
}
void dequantize_i32(const int32_t* x, float* y, int64_t n, float scale) {
  dequantize_by(x, y, n, same(scale), same(0));
}
void dequantize_i32_each(const int32_t* x, float* y, int64_t n, const float* scale) {
  dequantize_by(x, y, n, Array{scale}, same(0));
}

template <class B, class Factor, class Bias>
INFERKIT_INLINE void requantize_by(const int32_t* sum, B* y, int64_t n, Factor factor, Bias bias, int32_t zero) {
  const F32x16 shift = broadcast(static_cast<float>(zero));
  map(y, n, [=](auto at) INFERKIT_LAMBDA {
    I32x16 total = Array{sum}(at);
    const I32x16 addend = bias(at);
    INFERKIT_EACH_PART total.p[i] = (NativeInt)((NativeBits)total.p[i] + (NativeBits)addend.p[i]);
    return to_codes<B>(to_float(total) * factor(at), shift);
  });
}
template <class B>
void requantize(const int32_t* sum, B* y, int64_t n, float factor, int32_t bias, int32_t zero) {
  requantize_by(sum, y, n, same(factor), SameBits{static_cast<uint32_t>(bias)}, zero);
}
template <class B>
void requantize_whole(const float* sum, B* y, int64_t n, float factor, float bias, int32_t zero) {
  const F32x16 shift = broadcast(static_cast<float>(zero)), addend = broadcast(bias), by = broadcast(factor);
  map(y, n, [=](auto at) INFERKIT_LAMBDA { return to_codes<B>((Array{sum}(at) + addend) * by, shift); });
}
template <class B>
void requantize_each(const int32_t* sum, B* y, int64_t n, const float* factor, const int32_t* bias, int32_t zero) {
  if (bias)
    requantize_by(sum, y, n, Array{factor}, Array{bias}, zero);
  else
    requantize_by(sum, y, n, Array{factor}, SameBits{0}, zero);
}

void widen_range(const float* x, int64_t n, float* low, float* high) {
  // Two chains each way: a comparison takes a few cycles. NaN goes on the left, where it loses.
  F32x16 low0 = broadcast(*low), low1 = low0, high0 = broadcast(*high), high1 = high0;
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const F32x16 a = load(x + i), b = load(x + i + kLanes);
    low0 = min(a, low0), high0 = max(a, high0);
    low1 = min(b, low1), high1 = max(b, high1);
  }
  float least = horizontal_min(min(low0, low1)), greatest = horizontal_max(max(high0, high1));
  for (; i < n; ++i) {
    least = x[i] < least ? x[i] : least;
    greatest = x[i] > greatest ? x[i] : greatest;
  }
  *low = least;
  *high = greatest;
}

float quantize_row(const float* x, uint8_t* y, int64_t n, uint8_t* zero) {
  constexpr float kLeast = 0x1p-100f;  // of a range: its scale and the inverse of that are normal numbers
  F32x16 low = broadcast(0.0f), high = low, odd = low;
  const auto widen = [&](F32x16 v) INFERKIT_LAMBDA {
    low = min(v, low);
    high = max(v, high);
    odd = odd + (v - v);  // 0, or no number
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) widen(load(x + i));
  if (i < n) widen(load_partial(x + i, n - i));
  // Halves: the range itself may be too large for a float.
  const float least = horizontal_min(low), half = horizontal_max(high) * 0.5f - least * 0.5f;
  const float scale = (half < kLeast ? kLeast : half) * (2.0f / 255), inverse = 1 / scale;
  const F32x16 shift = max(min(round_even(broadcast(-least * inverse)), broadcast(255.0f)), broadcast(0.0f));
  const F32x16 by = broadcast(inverse);
  map(y, n, [=](auto at) INFERKIT_LAMBDA { return to_codes<uint8_t>(Array{x}(at)*by, shift); });
  float point[kLanes];
  store(point, shift);
  *zero = static_cast<uint8_t>(point[0]);
  return scale + horizontal_sum(odd);
}

template <class B>
constexpr ByteKernels<B> kBytes = {quantize<B>,   quantize_each<B>,    dequantize<B>,     dequantize_each<B>,
                                   requantize<B>, requantize_whole<B>, requantize_each<B>};

}  // namespace

extern const QuantizeKernels kQuantize;
const QuantizeKernels kQuantize = {compiled_isa,        kBytes<uint8_t>, kBytes<int8_t>, dequantize_i32,
                                   dequantize_i32_each, widen_range,     quantize_row};

}  // namespace inferkit::kernels::INFERKIT_TIER
