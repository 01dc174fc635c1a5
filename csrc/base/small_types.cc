#include "base/small_types.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace inferkit {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Format {
  int exponent_bits, mantissa_bits, bias;
  int largest;   // the magnitude bits of the largest number
  int overflow;  // of what lies beyond it: infinity or NaN
  int nan;
  bool negative_zero;

  constexpr int sign() const { return 1 << (exponent_bits + mantissa_bits); }
};

constexpr Format format_of(DType t) {
  switch (t) {
    case DType::kF8E4M3FN:
      return {4, 3, 7, 0x7e, 0x7f, 0x7f, true};
    case DType::kF8E4M3FNUZ:
      return {4, 3, 8, 0x7f, 0x80, 0x80, false};
    case DType::kF8E5M2:
      return {5, 2, 15, 0x7b, 0x7c, 0x7e, true};
    case DType::kF8E5M2FNUZ:
      return {5, 2, 16, 0x7f, 0x80, 0x80, false};
    default:  // E2M1
      return {2, 1, 1, 7, 7, 8, true};
  }
}

constexpr float power_of_two(int exponent) {  // also where it is subnormal
  return exponent >= -126 ? std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23)
                          : std::bit_cast<float>(uint32_t{1} << (exponent + 149));
}

constexpr float value_of(const Format& f, int byte) {
  const int magnitude = byte & (f.sign() - 1);
  const float sign = byte & f.sign() ? -1.0f : 1.0f;
  if (!f.negative_zero && (byte & 0xff) == f.nan) return -kNaN;
  if (magnitude > f.largest)
    return magnitude == f.overflow && f.overflow != f.nan ? sign * kInfinity : (sign < 0 ? -kNaN : kNaN);
  const int exponent = magnitude >> f.mantissa_bits, mantissa = magnitude & ((1 << f.mantissa_bits) - 1);
  const int whole = exponent ? (1 << f.mantissa_bits) | mantissa : mantissa;
  return sign * static_cast<float>(whole) * power_of_two((exponent ? exponent : 1) - f.bias - f.mantissa_bits);
}

constexpr std::array<float, 256> table_of(DType t) {
  std::array<float, 256> values{};
  for (int byte = 0; byte < 256; ++byte) {
    values[static_cast<size_t>(byte)] =
        t != DType::kF8E8M0 ? value_of(format_of(t), byte) : (byte == 255 ? kNaN : power_of_two(byte - 127));
  }
  return values;
}
constexpr std::array<std::array<float, 256>, 6> kTables = {table_of(DType::kF8E4M3FN), table_of(DType::kF8E4M3FNUZ),
                                                           table_of(DType::kF8E5M2),   table_of(DType::kF8E5M2FNUZ),
                                                           table_of(DType::kF8E8M0),   table_of(DType::kF4E2M1)};

}  // namespace

DType carrier_of(DType t) {
  if (is_small_float(t)) return DType::kF32;
  return t == DType::kI4 || t == DType::kI2 ? DType::kI8 : DType::kU8;
}

const std::array<float, 256>& small_float_values(DType t) {
  return kTables[static_cast<size_t>(t) - static_cast<size_t>(DType::kF8E4M3FN)];
}

uint8_t to_small_float(DType t, float v, bool saturate) {
  const Format f = format_of(t);
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  const int sign = bits >> 31 ? f.sign() : 0;
  if (v != v) return static_cast<uint8_t>(f.nan | (f.negative_zero && t != DType::kF4E2M1 ? sign : 0));
  // In units of the format's last place at this exponent, which a double holds exactly.
  const double magnitude = std::fabs(static_cast<double>(v));
  const int lowest = 1 - f.bias;
  int exponent = std::max(static_cast<int>(bits >> 23 & 0xff) - 127, lowest);
  int result = f.overflow;
  if (magnitude < 0x1p20) {
    // Both parts in one: a mantissa that rounds up to a whole one carries into the exponent.
    const int units = static_cast<int>(std::rint(std::ldexp(magnitude, f.mantissa_bits - exponent)));
    result = ((exponent - lowest) << f.mantissa_bits) + units;
  }
  if (magnitude >= 0x1p20 || result > f.largest) {
    if (!saturate) return static_cast<uint8_t>(f.overflow == 0x80 ? 0x80 : f.overflow | sign);
    result = f.largest;
  }
  if (result == 0 && !f.negative_zero) return 0;
  return static_cast<uint8_t>(result | sign);
}

uint8_t to_power_of_two(float v, bool saturate, PowerRounding rounding) {
  // By the bits: E8M0's smallest is a subnormal float, which arithmetic may take for zero.
  constexpr uint8_t kNone = 255, kLargest = 254;
  constexpr uint32_t kSmallest = 0x00400000, kInfinite = 0x7f800000;  // 2^-127
  const uint32_t bits = std::bit_cast<uint32_t>(v), magnitude = bits & 0x7fffffff;
  if (magnitude > kInfinite || (bits >> 31 && magnitude)) return kNone;  // NaN and what is negative
  const bool up = rounding == PowerRounding::kUp, nearest = rounding == PowerRounding::kNearest;
  if (magnitude < kSmallest) {
    // Half of the smallest and more rounds to it.
    return saturate || (magnitude && (up || (nearest && magnitude >= kSmallest / 2))) ? 0 : kNone;
  }
  if (magnitude == kInfinite) return saturate ? kLargest : kNone;
  // 1.fraction times a power of two, the fraction in units of 2^-23.
  const bool subnormal = magnitude < 0x00800000;
  const uint32_t fraction = subnormal ? (magnitude - kSmallest) << 1 : magnitude & 0x007fffff;
  uint32_t byte = subnormal ? 0 : magnitude >> 23;
  if (up ? fraction > 0 : nearest && fraction >= 0x00400000) ++byte;
  if (byte > kLargest) return saturate ? kLargest : kNone;
  return static_cast<uint8_t>(byte);
}

SmallRange small_range(DType t) {
  switch (t) {
    case DType::kI4:
      return {-8, 7};
    case DType::kU4:
      return {0, 15};
    case DType::kI2:
      return {-2, 1};
    default:
      return {0, 3};
  }
}

}  // namespace inferkit
