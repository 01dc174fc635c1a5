#include "base/dtype.h"

#include <array>
#include <bit>
#include <cstring>

namespace inferkit {
namespace {
struct Row {
  std::string_view name;
  size_t bits;
};
constexpr std::array<Row, kDTypeCount> kRows = {
    {{"float32", 32},    {"float64", 64},        {"float16", 16},       {"bfloat16", 16},
     {"int8", 8},        {"int16", 16},          {"int32", 32},         {"int64", 64},
     {"uint8", 8},       {"uint16", 16},         {"uint32", 32},        {"uint64", 64},
     {"bool", 8},        {"string", 128},        {"float8_e4m3fn", 8},  {"float8_e4m3fnuz", 8},
     {"float8_e5m2", 8}, {"float8_e5m2fnuz", 8}, {"float8_e8m0fnu", 8}, {"float4_e2m1fn", 4},
     {"int4", 4},        {"uint4", 4},           {"int2", 2},           {"uint2", 2}}};
static_assert(sizeof(std::string_view) == 16);
}  // namespace

size_t dtype_bits(DType dtype) { return kRows[static_cast<size_t>(dtype)].bits; }
size_t dtype_size(DType dtype) { return (dtype_bits(dtype) + 7) / 8; }
std::string_view dtype_name(DType dtype) { return kRows[static_cast<size_t>(dtype)].name; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kRows.size(); ++i) {
    if (kRows[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

float to_float(Half h) {
  const uint32_t sign = uint32_t(h.bits & 0x8000u) << 16;
  const uint32_t exponent = (h.bits >> 10) & 0x1f;
  uint32_t mantissa = h.bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  if (mantissa == 0) return std::bit_cast<float>(sign);
  // A subnormal half is mantissa * 2^-24, which float32 holds exactly.
  const float value = float(mantissa) * 0x1p-24f;
  return sign ? -value : value;
}

float to_float(BFloat16 b) { return std::bit_cast<float>(uint32_t(b.bits) << 16); }

Half to_half(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  const uint16_t sign = uint16_t((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {uint16_t(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu))};  // NaN stays NaN
  if (magnitude >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // rounds to 65536 or above: infinity
  if (magnitude < 0x38800000u) {
    // Below the smallest normal half: adding 0.5 leaves the rounded multiple of 2^-24 in the low mantissa bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {uint16_t(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {uint16_t(sign | ((rounded - 0x38000000u) >> 13))};
}

BFloat16 to_bfloat16(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {uint16_t((bits >> 16) | 0x40u)};
  return {uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace inferkit
