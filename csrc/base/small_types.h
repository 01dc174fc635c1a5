// Element types of at most eight bits that C++ has no type for: floats of 8 and 4 bits, integers of 4 and 2. An element
// takes a byte of memory, its bits the lowest of it, as in arrays of ml_dtypes; what the other bits are does not
// matter.
//
// Formats: "FP8 Formats for Deep Learning" (Micikevicius et al., 2022) for E4M3FN and E5M2; "8-bit Numerical Formats
// for Deep Neural Networks" (Noune et al., 2022) for the FNUZ ones, which have one NaN and no negative zero; "OCP
// Microscaling Formats (MX)", version 1.0, for E8M0 (a power of two, no sign) and E2M1.
#pragma once
#include <array>
#include <cstdint>

#include "base/dtype.h"

namespace inferkit {

constexpr bool is_small_float(DType t) { return t >= DType::kF8E4M3FN && t <= DType::kF4E2M1; }
constexpr bool is_small_integer(DType t) { return t >= DType::kI4 && t <= DType::kU2; }
constexpr bool is_small(DType t) { return is_small_float(t) || is_small_integer(t); }

/// The type that holds every value of the small type `t`: float32, int8 or uint8.
DType carrier_of(DType t);

/// What each byte is as an element of the small float `t`.
const std::array<float, 256>& small_float_values(DType t);

/// `v` as the small float `t` (not E8M0), rounded to nearest even. What is too large becomes the largest number where
/// `saturate`; else infinity, or NaN in a format without one. E2M1 has neither: it always saturates, and NaN is -0.
uint8_t to_small_float(DType t, float v, bool saturate);

enum class PowerRounding : uint8_t { kUp, kDown, kNearest };  // kNearest: a tie goes up
/// `v` as E8M0. What is too small (0 too) or too large becomes the nearest power of two that there is where `saturate`,
/// else NaN; a negative number is NaN.
uint8_t to_power_of_two(float v, bool saturate, PowerRounding rounding);

struct SmallRange {
  int lowest, highest;
};
/// Of a small integer.
SmallRange small_range(DType t);

/// The value of an element of the small integer `t`.
constexpr int small_integer(DType t, uint8_t byte) {
  const bool four = t == DType::kI4 || t == DType::kU4;
  const int bits = byte & (four ? 15 : 3), sign = four ? 8 : 2;
  return t == DType::kI4 || t == DType::kI2 ? (bits ^ sign) - sign : bits;
}
/// The element of a small integer type of `bits` bits: the lowest bits of the value.
constexpr uint8_t to_small_integer(size_t bits, int value) { return static_cast<uint8_t>(value & ((1 << bits) - 1)); }

}  // namespace inferkit
