// The constant right sides of products in float32, float64 and bf16, in the panels that GEMM reads.
#pragma once
#include "engine/compile/lower.h"

namespace inferkit {

/// Matrices of one constant, one behind the other: [k, n] or, transposed, [n, k].
struct Panels {
  int64_t k = 0, n = 0;
  bool transposed = false;
  int64_t matrices = 1;
  int64_t first = 0;  // element of the constant with which they begin
};

/// Packed once per model, a constant of float64 as double, others as float; the matrices are
/// GemmOf<T>::packed_elements(k, n) apart.
Ref packed_panels(LowerContext& c, const Tensor& constant, const Panels& panels);
/// The same of a constant of float32, or of halves, for products in bf16.
Ref packed_panels_bf16(LowerContext& c, const Tensor& constant, const Panels& panels);

}  // namespace inferkit
