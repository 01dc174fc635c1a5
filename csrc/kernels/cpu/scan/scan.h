// Is everything finite? Is everything zero? Read at memory speed, or on the way through a copy.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
enum class DType : uint8_t;
}  // namespace inferkit

namespace inferkit::kernels {

/// What a scan needs to know of an element type; see float_kind.
enum class FloatKind : uint8_t { kF32, kF64, kF16, kBF16 };
inline constexpr int kFloatKindCount = 4;

struct ScanKernels {
  const char* (*compiled_isa)();
  bool (*all_finite[kFloatKindCount])(const void* src, int64_t n);
  bool (*copy_all_finite[kFloatKindCount])(void* dst, const void* src, int64_t n);
  bool (*all_zero[kFloatKindCount])(const void* src, int64_t n);
};

const ScanKernels& scan_kernels();  // of the active tier
const ScanKernels& scan_kernels(Isa isa);

/// True where none of n elements is NaN or infinite; always true of types that are not floats. Any alignment.
bool all_finite(DType dtype, const void* src, int64_t n);
/// Copies n elements (all of them, whatever they hold) and answers as all_finite. No overlap. Not for strings.
bool copy_all_finite(DType dtype, void* dst, const void* src, int64_t n);
/// True where n elements are all 0 (or -0); true of none. Any type but strings.
bool all_zero(DType dtype, const void* src, int64_t n);

}  // namespace inferkit::kernels
