// The arithmetic of one time step of a recurrent layer behind its matrix products, for one row of the batch: the gates
// with their usual activations (sigmoid and tanh), fused.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
}

namespace inferkit::kernels {

/// n hidden units each. `y` takes a copy of the new state; null where nobody wants it. No array may overlap another
/// but by being the same one.
struct RecurrentKernels {
  const char* (*compiled_isa)();
  /// gates holds i, o, f, c (n each): c = s(f) c + s(i) tanh(c'), h = s(o) tanh(c).
  void (*lstm)(const float* gates, float* c, float* h, float* y, int64_t n);
  /// rh = s(r) h.
  void (*gru_reset)(const float* r, const float* h, float* rh, int64_t n);
  /// h = (1 - s(z)) tanh(hidden) + s(z) h.
  void (*gru_update)(const float* z, const float* hidden, float* h, float* y, int64_t n);
  /// gates holds z, r, x's part of the hidden gate; the reset applies to `recurrent`, h's part of it.
  void (*gru_reset_after)(const float* gates, const float* recurrent, float* h, float* y, int64_t n);
};

const RecurrentKernels& recurrent_kernels();  // of the active tier
const RecurrentKernels& recurrent_kernels(Isa isa);

}  // namespace inferkit::kernels
