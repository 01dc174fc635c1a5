// Element types, by ONNX's and numpy's names.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace inferkit {

enum class DType : uint8_t {
  kF32,
  kF64,
  kF16,
  kBF16,
  kI8,
  kI16,
  kI32,
  kI64,
  kU8,
  kU16,
  kU32,
  kU64,
  kBool,
  kString,
  kF8E4M3FN,  // from here on: base/small_types.h
  kF8E4M3FNUZ,
  kF8E5M2,
  kF8E5M2FNUZ,
  kF8E8M0,
  kF4E2M1,
  kI4,
  kU4,
  kI2,
  kU2
};
inline constexpr int kDTypeCount = 24;

/// Bytes of one element in memory; of a string, those of its view (base/string_dtype.h).
size_t dtype_size(DType dtype);
/// Bits of one element in a file, where several may share a byte; of a string, those of its view.
size_t dtype_bits(DType dtype);
/// "float32", "int64", "bool", ...; numpy's names and, for what numpy lacks, ml_dtypes'.
std::string_view dtype_name(DType dtype);
/// The inverse of dtype_name.
std::optional<DType> dtype_from_name(std::string_view name);
constexpr bool is_float(DType t) {
  return t == DType::kF32 || t == DType::kF64 || t == DType::kF16 || t == DType::kBF16;
}
constexpr bool is_integer(DType t) { return t >= DType::kI8 && t <= DType::kU64; }

/// IEEE 754 binary16 and bfloat16 as storage; arithmetic happens in float. Rounding is to nearest even.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};
float to_float(Half h);
float to_float(BFloat16 b);
Half to_half(float f);
BFloat16 to_bfloat16(float f);

template <class T>
struct DTypeOf;
#define INFERKIT_DTYPE_OF(type, value)            \
  template <>                                     \
  struct DTypeOf<type> {                          \
    static constexpr DType kValue = DType::value; \
  }
INFERKIT_DTYPE_OF(float, kF32);
INFERKIT_DTYPE_OF(double, kF64);
INFERKIT_DTYPE_OF(Half, kF16);
INFERKIT_DTYPE_OF(BFloat16, kBF16);
INFERKIT_DTYPE_OF(int8_t, kI8);
INFERKIT_DTYPE_OF(int16_t, kI16);
INFERKIT_DTYPE_OF(int32_t, kI32);
INFERKIT_DTYPE_OF(int64_t, kI64);
INFERKIT_DTYPE_OF(uint8_t, kU8);
INFERKIT_DTYPE_OF(uint16_t, kU16);
INFERKIT_DTYPE_OF(uint32_t, kU32);
INFERKIT_DTYPE_OF(uint64_t, kU64);
INFERKIT_DTYPE_OF(bool, kBool);
#undef INFERKIT_DTYPE_OF
template <class T>
inline constexpr DType kDTypeOf = DTypeOf<T>::kValue;

}  // namespace inferkit
