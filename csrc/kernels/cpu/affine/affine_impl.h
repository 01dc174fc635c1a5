// a x + b of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/affine/affine.h"
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {

extern const AffineKernels kAffine;

namespace {

void scalar(const float* x, float* y, int64_t n, float a, float b) {
  const F32x16 va = broadcast(a), vb = broadcast(b);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, fma(load(x + i), va, vb));
  if (i < n) store_partial(y + i, fma(load_partial(x + i, n - i), va, vb), n - i);
}

void vector(const float* x, float* y, int64_t n, const float* a, const float* b) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, fma(load(x + i), load(a + i), load(b + i)));
  if (i < n) {
    const int64_t rest = n - i;
    store_partial(y + i, fma(load_partial(x + i, rest), load_partial(a + i, rest), load_partial(b + i, rest)), rest);
  }
}

}  // namespace

const AffineKernels kAffine = {compiled_isa, scalar, vector};

}  // namespace inferkit::kernels::INFERKIT_TIER
