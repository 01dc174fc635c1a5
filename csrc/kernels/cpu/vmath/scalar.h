// Functions that have no vector code: one by one, in double. Compiled once, for the baseline, and shared by every tier.
#pragma once
#include <stdint.h>

namespace inferkit::kernels {

void sin_f32(const float* x, float* y, int64_t n, float, float);
void cos_f32(const float* x, float* y, int64_t n, float, float);
void tan_f32(const float* x, float* y, int64_t n, float alpha, float beta);

}  // namespace inferkit::kernels
