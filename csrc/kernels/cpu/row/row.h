// Functions of one contiguous row of floats: reductions, softmax, normalisations. Sums run in 64 lanes with one fixed
// tree at the end, so their bits are the same on AVX2 and AVX-512 and depend on the row alone. Columns are reduced in
// the same order, many at once.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
}

namespace inferkit::kernels {

/// Of an empty row: 0, NaN, -inf, +inf, 0, 0, 1. A NaN in the row gives NaN.
enum class Reduce : uint8_t { kSum, kMean, kMax, kMin, kSumSquares, kSumAbs, kProduct };
inline constexpr int kReduceCount = static_cast<int>(Reduce::kProduct) + 1;
using ReduceFn = float (*)(const float* x, int64_t n);
/// y[j] = the reduction of x[j], x[stride + j], ... x[(n - 1) stride + j] for each of `width` columns, n > 0, with the
/// bits of the same values in a row. y must not overlap x.
using ReduceColumnsFn = void (*)(const float* x, int64_t n, int64_t stride, int64_t width, float* y);

struct NormArgs {
  const float* x = nullptr;      // rows one behind the other
  const float* scale = nullptr;  // n values; null for 1
  const float* bias = nullptr;   // n values; null for 0
  float* y = nullptr;            // may be x
  int64_t n = 0;
  int64_t rows = 1;
  float epsilon = 0;
};

struct RowKernels {
  const char* (*compiled_isa)();
  ReduceFn reduce[kReduceCount];
  ReduceColumnsFn reduce_columns[kReduceCount];
  /// e[r stride + j] = exp(x[r stride + j] - top[j]), where e is not null, and y[j] = their sum; e may be x.
  void (*exponentials)(const float* x, int64_t n, int64_t stride, int64_t width, const float* top, float* e, float* y);
  void (*softmax)(const float* x, float* y, int64_t n, float scale, const float* mask);
  void (*log_softmax)(const float* x, float* y, int64_t n);
  // The same of rows one behind the other; y may be x.
  void (*softmax_rows)(const float* x, float* y, int64_t n, int64_t rows);
  void (*log_softmax_rows)(const float* x, float* y, int64_t n, int64_t rows);
  void (*layer_norm)(const NormArgs& args);
  void (*rms_norm)(const NormArgs& args);
  // In double, in 32 lanes. y may be x.
  void (*softmax64)(const double* x, double* y, int64_t n);
  /// The sum of all e = exp(x - *top), where *top is the largest of the row; e may be null, or x.
  double (*exponentials64)(const double* x, double* e, int64_t n, double* top);
};

const RowKernels& row_kernels();  // of the active tier
const RowKernels& row_kernels(Isa isa);

inline ReduceFn reduce_fn(Reduce op) { return row_kernels().reduce[static_cast<size_t>(op)]; }
inline ReduceColumnsFn reduce_columns_fn(Reduce op) { return row_kernels().reduce_columns[static_cast<size_t>(op)]; }

/// y = softmax(scale x + mask); mask (n values) may be null, y may be x. A row that is -inf throughout gives NaN.
inline void softmax_row(const float* x, float* y, int64_t n, float scale = 1, const float* mask = nullptr) {
  row_kernels().softmax(x, y, n, scale, mask);
}
inline void softmax_rows(const float* x, float* y, int64_t n, int64_t rows) {
  row_kernels().softmax_rows(x, y, n, rows);
}
inline void log_softmax_rows(const float* x, float* y, int64_t n, int64_t rows) {
  row_kernels().log_softmax_rows(x, y, n, rows);
}
/// y = (x - mean x) / sqrt(var x + epsilon) * scale + bias, row by row; a second pass over x - mean x gives the
/// variance, and what the mean lost when it was rounded.
inline void layer_norm_rows(const NormArgs& args) { row_kernels().layer_norm(args); }
/// y = x / sqrt(mean x^2 + epsilon) * scale + bias, row by row.
inline void rms_norm_rows(const NormArgs& args) { row_kernels().rms_norm(args); }

}  // namespace inferkit::kernels
