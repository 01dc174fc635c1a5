// Recurrent gates of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/recurrent/recurrent.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/vmath/vmath_inl.h"

namespace inferkit::kernels::INFERKIT_TIER {

extern const RecurrentKernels kRecurrent;

namespace {

/// Sixteen units at a time, and then the rest of them.
struct Span16 {
  int64_t at, count;
  INFERKIT_MEMBER F32x16 get(const float* x) const {
    return count == kLanes ? load(x + at) : load_partial(x + at, count);
  }
  INFERKIT_MEMBER void put(float* y, F32x16 v) const {
    count == kLanes ? store(y + at, v) : store_partial(y + at, v, count);
  }
};

template <class F>
INFERKIT_INLINE void for_units(int64_t n, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(Span16{i, kLanes});
  if (i < n) f(Span16{i, n - i});
}

void lstm(const float* gates, float* c, float* h, float* y, int64_t n) {
  for_units(n, [=](Span16 s) INFERKIT_LAMBDA {
    const F32x16 input = sigmoid(s.get(gates)), output = sigmoid(s.get(gates + n));
    const F32x16 forget = sigmoid(s.get(gates + 2 * n)), candidate = tanh(s.get(gates + 3 * n));
    const F32x16 cell = fma(forget, s.get(c), input * candidate);
    const F32x16 state = output * tanh(cell);
    s.put(c, cell);
    s.put(h, state);
    if (y) s.put(y, state);
  });
}

/// (1 - z) hidden + z h.
INFERKIT_INLINE F32x16 mix(F32x16 z, F32x16 hidden, F32x16 h) { return fma(z, h, (broadcast(1.0f) - z) * hidden); }

void gru_reset(const float* r, const float* h, float* rh, int64_t n) {
  for_units(n, [=](Span16 s) INFERKIT_LAMBDA { s.put(rh, sigmoid(s.get(r)) * s.get(h)); });
}

void gru_update(const float* z, const float* hidden, float* h, float* y, int64_t n) {
  for_units(n, [=](Span16 s) INFERKIT_LAMBDA {
    const F32x16 state = mix(sigmoid(s.get(z)), tanh(s.get(hidden)), s.get(h));
    s.put(h, state);
    if (y) s.put(y, state);
  });
}

void gru_reset_after(const float* gates, const float* recurrent, float* h, float* y, int64_t n) {
  for_units(n, [=](Span16 s) INFERKIT_LAMBDA {
    const F32x16 z = sigmoid(s.get(gates)), r = sigmoid(s.get(gates + n));
    const F32x16 hidden = tanh(fma(r, s.get(recurrent), s.get(gates + 2 * n)));
    const F32x16 state = mix(z, hidden, s.get(h));
    s.put(h, state);
    if (y) s.put(y, state);
  });
}

}  // namespace

const RecurrentKernels kRecurrent = {compiled_isa, lstm, gru_reset, gru_update, gru_reset_after};

}  // namespace inferkit::kernels::INFERKIT_TIER
