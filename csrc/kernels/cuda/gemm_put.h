// What follows a sum in products, whatever has made it.
#pragma once
#include "kernels/cuda/functions.h"
#include "kernels/cuda/gemm.h"

namespace inferkit::kernels::cuda {
namespace {

/// The sum becomes an element of C: bias and activation as on the CPU, where ReLU alone is part of the tile.
INFERKIT_DEVICE float finished(const GemmParams& p, float sum, int64_t column) {
  if (p.bias) sum = __fadd_rn(sum, p.bias[column]);
  return p.act == Unary::kIdentity ? sum : apply_unary(p.act, sum, p.alpha, p.beta);
}
INFERKIT_DEVICE void put_element(const GemmParams& p, int64_t z, int64_t row, int64_t column, float sum) {
  if (row < p.m && column < p.n) p.c[(z * p.m + row) * p.n + column] = finished(p, sum, column);
}

}  // namespace
}  // namespace inferkit::kernels::cuda
