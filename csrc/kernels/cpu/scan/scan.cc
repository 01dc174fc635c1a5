#include "kernels/cpu/scan/scan.h"

#include <cstring>

#include "base/dtype.h"

namespace inferkit::kernels {
namespace {

FloatKind float_kind(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return FloatKind::kF64;
    case DType::kF16:
      return FloatKind::kF16;
    case DType::kBF16:
      return FloatKind::kBF16;
    default:
      return FloatKind::kF32;
  }
}

bool all_bytes_zero(const unsigned char* bytes, size_t n) {
  // The first is 0 and each is as the one before it: memcmp at its full speed.
  return n == 0 || (bytes[0] == 0 && std::memcmp(bytes, bytes + 1, n - 1) == 0);
}

}  // namespace

bool all_finite(DType dtype, const void* src, int64_t n) {
  if (!is_float(dtype) || n <= 0) return true;
  return scan_kernels().all_finite[static_cast<size_t>(float_kind(dtype))](src, n);
}

bool copy_all_finite(DType dtype, void* dst, const void* src, int64_t n) {
  if (n <= 0) return true;
  if (!is_float(dtype)) {
    std::memcpy(dst, src, static_cast<size_t>(n) * dtype_size(dtype));
    return true;
  }
  return scan_kernels().copy_all_finite[static_cast<size_t>(float_kind(dtype))](dst, src, n);
}

bool all_zero(DType dtype, const void* src, int64_t n) {
  if (n <= 0) return true;
  if (!is_float(dtype)) {
    return all_bytes_zero(static_cast<const unsigned char*>(src), static_cast<size_t>(n) * dtype_size(dtype));
  }
  return scan_kernels().all_zero[static_cast<size_t>(float_kind(dtype))](src, n);
}

}  // namespace inferkit::kernels
