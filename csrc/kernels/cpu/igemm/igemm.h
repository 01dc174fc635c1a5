// C = (A - a_zero)(B - b_zero) of bytes, summed in int32, which wraps. Integers have one answer: every tier, tile and
// thread gives it. Both operands are first packed in the layout of the tier that multiplies them.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
class IsaFeatures;
}  // namespace inferkit

namespace inferkit::kernels {

/// Element (i, j) is the byte at data[i * row_stride + j * column_stride]; all are uint8, or all int8.
struct ByteMatrix {
  const void* data = nullptr;
  int64_t row_stride = 0, column_stride = 1;
  bool is_signed = false;
};

/// Zero points: bytes of their matrix's type, one for all or one per line (row of A, column of B). Null: zero.
struct ZeroPoints {
  const void* data = nullptr;
  bool per_line = false;
};

struct IgemmArgs {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;  // m rows that pack_a packed, igemm_row_bytes(k) apart
  const void* b = nullptr;  // panels of 16 columns that pack_b packed, igemm_panel_bytes(k) apart
  bool a_signed = false, b_signed = false;
  ZeroPoints a_zero, b_zero;
  int32_t* c = nullptr;  // row-major
  int64_t ldc = 0;
};

inline constexpr int64_t kIgemmColumns = 16;  // of a panel

struct IgemmKernels {
  const char* (*compiled_isa)();
  int64_t depth;  // neighbours in K that one step multiplies
  void (*pack_a)(const ByteMatrix& a, int64_t m, int64_t k, void* packed);
  void (*pack_b)(const ByteMatrix& b, int64_t k, int64_t n, void* packed);
  void (*gemm)(const IgemmArgs& args);
};

const IgemmKernels& igemm_kernels();  // of the active tier and features
const IgemmKernels& igemm_kernels(Isa isa, IsaFeatures features);

/// Bytes of a packed row of A and of a packed panel of B: k rounded up to whole steps, and the sums that zero points
/// are accounted for with.
inline int64_t igemm_row_bytes(const IgemmKernels& kernels, int64_t k) {
  return ((k + kernels.depth - 1) / kernels.depth + 1) * 4;
}
inline int64_t igemm_panel_bytes(const IgemmKernels& kernels, int64_t k) {
  return igemm_row_bytes(kernels, k) * kIgemmColumns;
}
inline int64_t igemm_panels(int64_t n) { return (n + kIgemmColumns - 1) / kIgemmColumns; }

}  // namespace inferkit::kernels
