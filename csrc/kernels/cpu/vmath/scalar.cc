#include "kernels/cpu/vmath/scalar.h"

#include <cmath>

namespace inferkit::kernels {

void sin_f32(const float* x, float* y, int64_t n, float, float) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(std::sin(static_cast<double>(x[i])));
}
void cos_f32(const float* x, float* y, int64_t n, float, float) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(std::cos(static_cast<double>(x[i])));
}

}  // namespace inferkit::kernels
