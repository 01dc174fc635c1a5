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

/// Sums as floats: y = base + sum * (row[i] * column[j]).
struct ScaledSums {
  float* y = nullptr;  // row-major
  int64_t ldy = 0;
  const float *row = nullptr, *column = nullptr;
  const float* base = nullptr;  // rows base_row apart, which may be 0; may be y; null for zeros
  int64_t base_row = 0;
};

struct IgemmArgs {
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;  // m rows that pack_a packed, igemm_row_bytes(k) apart
  const void* b = nullptr;  // panels of 16 columns that pack_b packed, igemm_panel_bytes(k) apart
  bool a_signed = false, b_signed = false;
  ZeroPoints a_zero, b_zero;
  int32_t* c = nullptr;  // row-major; null where `scaled` is wanted in its place
  int64_t ldc = 0;
  ScaledSums scaled;
};

inline constexpr int64_t kIgemmColumns = 16;  // of a panel

/// Rows [first, first + rows) of an image and its padding, which is `zero`, for WindowArgs: for each group of `depth`
/// channels, each row and each of `pitch` columns 4 bytes. Column 0 is `pad` columns before the image.
struct ImageArgs {
  const void* x = nullptr;  // `channels` planes of height x width bytes
  int64_t channels = 0, height = 0, width = 0;
  int64_t first = 0, rows = 0;  // some may lie outside
  int64_t pitch = 0, pad = 0;   // pitch: a multiple of kIgemmColumns
  uint8_t zero = 0;
  bool is_signed = false;
  void* to = nullptr;
  void* room = nullptr;  // depth * pitch bytes
};

/// A convolution at stride 1 of an image that pack_image packed: c = sum a (b - zero).
struct WindowArgs {
  int64_t filters = 0, steps = 0;
  const void* a = nullptr;           // rows of steps * depth int8 that pack_a packed; their zero points are 0
  const void* image = nullptr;       // what the first output's window begins with
  const int64_t* offsets = nullptr;  // bytes from there to what each step multiplies
  int64_t rows = 0, width = 0;       // of the output
  int64_t row_bytes = 0;             // of the image: from row to row
  int32_t zero = 0;                  // point of the image
  bool is_signed = false;            // is the image
  int32_t* c = nullptr;              // rows x width for each filter
  int64_t plane = 0;                 // from filter to filter in c
};

struct IgemmKernels {
  const char* (*compiled_isa)();
  int64_t depth;             // neighbours in K that one step multiplies
  double products_per_nano;  // of gemm with many rows, on one core of a Sapphire Rapids
  void (*pack_a)(const ByteMatrix& a, int64_t m, int64_t k, void* packed);
  void (*pack_b)(const ByteMatrix& b, int64_t k, int64_t n, void* packed);
  void (*gemm)(const IgemmArgs& args);
  void (*pack_image)(const ImageArgs& args);
  void (*windows)(const WindowArgs& args);
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
