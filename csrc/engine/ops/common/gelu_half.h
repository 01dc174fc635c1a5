// Gelu for the half types: the kernels' forms, which hold an absolute error, lose all digits where the function nears
// 0.
#pragma once
#include <cstdint>

namespace inferkit {

/// kernels::UnaryFn, within 1e-5 of the value wherever it stands; x and y are one block or do not overlap.
void gelu_half(const float* x, float* y, int64_t n, float, float);
/// The same of the form with tanh.
void gelu_tanh_half(const float* x, float* y, int64_t n, float, float);

}  // namespace inferkit
