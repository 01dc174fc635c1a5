// Elementwise functions of float, 16 lanes at a time. One element's bits depend on its value (and alpha, beta) alone:
// not on its place, the length, or AVX2 against AVX-512. GEMM's epilogue runs these very functions.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
}

namespace inferkit::kernels {

/// NaN gives NaN in every one of them. What alpha and beta mean stands behind each; the others ignore them.
enum class Unary : uint8_t {
  kIdentity,
  kRelu,
  kLeakyRelu,  // x < 0 ? alpha x : x
  kClip,       // to [alpha, beta], neither NaN
  kSigmoid,
  kTanh,
  kGelu,             // x/2 (1 + erf(x / sqrt 2))
  kGeluTanh,         // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  kSilu,             // x sigmoid(alpha x); plain SiLU has alpha = 1
  kHardSwish,        // x min(1, max(0, x/6 + 1/2))
  kHardSigmoid,      // min(1, max(0, alpha x + beta))
  kElu,              // x < 0 ? alpha (exp x - 1) : x
  kSelu,             // beta (x < 0 ? alpha (exp x - 1) : x); beta is ONNX's gamma
  kCelu,             // x < 0 ? alpha (exp(x / alpha) - 1) : x
  kSoftplus,         // log(1 + exp x)
  kSoftsign,         // x / (1 + |x|)
  kMish,             // x tanh(softplus x)
  kThresholdedRelu,  // x > alpha ? x : 0, which a NaN gives too
  kExp,
  kLog,
  kErf,
  kAbs,
  kNeg,
  kSign,
  kSquare,
  kSqrt,
  kReciprocal,
  kFloor,
  kCeil,
  kRound,  // half to even
  kSin,    // kSin, kCos and kTan are computed in double, one by one: kernels/trigonometry.h
  kCos,
  kTan,
  kAtan,  // from here on computed in double, too: kernels/elementary.h
  kAsin,
  kAcos,
  kSinh,
  kCosh,
  kAsinh,
  kAcosh,
  kAtanh,
};
inline constexpr int kUnaryCount = static_cast<int>(Unary::kAtanh) + 1;

/// y[i] = f(x[i]) for n contiguous elements; x == y is allowed, other overlap is not. Any alignment.
using UnaryFn = void (*)(const float* x, float* y, int64_t n, float alpha, float beta);

/// One tier's functions.
struct VmathKernels {
  const char* (*compiled_isa)();  // answers from the macros that its file was compiled with
  UnaryFn unary[kUnaryCount];
  /// y[i] = x[i] to the power of e[i], or of e, by the rules of C's pow; x == y is allowed.
  void (*power)(const float* x, const double* e, float* y, int64_t n);
  void (*power_of_one)(const float* x, double e, float* y, int64_t n);
};

const VmathKernels& vmath_kernels();  // of the active tier
const VmathKernels& vmath_kernels(Isa isa);

inline UnaryFn unary_fn(Unary op) { return vmath_kernels().unary[static_cast<size_t>(op)]; }

}  // namespace inferkit::kernels
