// y = a x + b over contiguous floats: what a normalisation with known statistics comes down to.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
}

namespace inferkit::kernels {

struct AffineKernels {
  const char* (*compiled_isa)();
  /// One a and b for all; y may be x.
  void (*scalar)(const float* x, float* y, int64_t n, float a, float b);
  /// An a and a b for each element; y may be x.
  void (*vector)(const float* x, float* y, int64_t n, const float* a, const float* b);
};

const AffineKernels& affine_kernels();  // of the active tier
const AffineKernels& affine_kernels(Isa isa);

}  // namespace inferkit::kernels
