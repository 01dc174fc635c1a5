#include "kernels/cpu/vmath/scalar.h"

#include <bit>

#include "kernels/trigonometry.h"

namespace inferkit::kernels {

void sin_f32(const float* x, float* y, int64_t n, float, float) {
  for (int64_t i = 0; i < n; ++i) y[i] = sine(x[i], std::bit_cast<uint32_t>(x[i]), 0);
}
void cos_f32(const float* x, float* y, int64_t n, float, float) {
  for (int64_t i = 0; i < n; ++i) y[i] = sine(x[i], std::bit_cast<uint32_t>(x[i]), 1);
}

void tan_f32(const float* x, float* y, int64_t n, float, float) {
  for (int64_t i = 0; i < n; ++i) y[i] = tangent(x[i], std::bit_cast<uint32_t>(x[i]));
}

}  // namespace inferkit::kernels
