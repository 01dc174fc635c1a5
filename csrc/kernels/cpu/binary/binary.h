// Elementwise arithmetic on two operands of float: vector with vector, vector with scalar, scalar with vector.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
}

namespace inferkit::kernels {

/// kMin and kMax give NaN where either operand is NaN (as numpy does). kPrelu is a < 0 ? b a : a.
enum class Binary : uint8_t { kAdd, kSub, kMul, kDiv, kMin, kMax, kPrelu };
inline constexpr int kBinaryCount = static_cast<int>(Binary::kPrelu) + 1;

/// Which operands are vectors of n elements and which a single element.
enum class BinaryForm : uint8_t { kVectorVector, kVectorScalar, kScalarVector };
inline constexpr int kBinaryFormCount = 3;

/// y[i] = a[i] op b[i], where a scalar operand is read once. y may be a or b; other overlap is not allowed.
using BinaryFn = void (*)(const float* a, const float* b, float* y, int64_t n);

struct BinaryKernels {
  const char* (*compiled_isa)();
  BinaryFn fn[kBinaryCount][kBinaryFormCount];
};

const BinaryKernels& binary_kernels();  // of the active tier
const BinaryKernels& binary_kernels(Isa isa);

inline BinaryFn binary_fn(Binary op, BinaryForm form) {
  return binary_kernels().fn[static_cast<size_t>(op)][static_cast<size_t>(form)];
}

}  // namespace inferkit::kernels
