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
/// Whether rows of C take four neighbours in one store, and what follows a sum is short enough to be there four times.
INFERKIT_DEVICE bool goes_in_quads(const GemmParams& p) {
  return (p.act == Unary::kIdentity || p.act == Unary::kRelu) && !p.words && p.n % 4 == 0 &&
         (reinterpret_cast<uintptr_t>(p.c) & 15) == 0;
}
/// Four neighbours of a row, of which all or none are there.
INFERKIT_DEVICE void put_quad(const GemmParams& p, int64_t z, int64_t row, int64_t column, const float4& sums) {
  if (row >= p.m || column >= p.n) return;
  float v[4] = {sums.x, sums.y, sums.z, sums.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (p.bias) v[i] = __fadd_rn(v[i], p.bias[column + i]);
    if (p.act == Unary::kRelu) v[i] = apply_unary(Unary::kRelu, v[i], 0, 0);
  }
  store4(p.c + (z * p.m + row) * p.n + column, float4{v[0], v[1], v[2], v[3]});
}

}  // namespace
}  // namespace inferkit::kernels::cuda
