// What follows a sum in products, whatever has made it.
#pragma once
#include "kernels/cuda/functions.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

/// The sum becomes an element of C: bias and activation as on the CPU, where ReLU alone is part of the tile.
INFERKIT_DEVICE float finished(const GemmParams& p, float sum, int64_t column) {
  if (p.bias) sum = __fadd_rn(sum, p.bias[column]);
  return p.act == Unary::kIdentity ? sum : apply_unary(p.act, sum, p.alpha, p.beta);
}
INFERKIT_DEVICE void put_element(const GemmParams& p, int64_t z, int64_t row, int64_t column, float sum) {
  if (row >= p.m || column >= p.n) return;
  const int64_t at = (z * p.m + row) * p.n + column;
  const float value = finished(p, sum, column);
  if (p.words) {
    put_word(p.words + at, static_cast<uint32_t>(__float_as_int(value)), *p.run);
  } else {
    p.c[at] = value;
  }
}

}  // namespace
}  // namespace inferkit::kernels::cuda
