// Floats to bytes and back by a scale and a zero point, and exact int32 sums to bytes. Every tier gives the bits of
//   byte(v, zero) = saturate(round to even(v) + zero), in float, where NaN gives the least byte:
//   quantize byte(x / scale, zero); dequantize (x - zero) * scale; requantize byte((sum + bias) * factor, zero).
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
}

namespace inferkit::kernels {

/// B: uint8_t or int8_t. The forms *_each have a scale (factor) for each element, and a zero point or bias each, or
/// none where it is null; the others have one for all. Any alignment; y must not overlap what is read.
template <class B>
struct ByteKernels {
  void (*quantize)(const float* x, B* y, int64_t n, float scale, int32_t zero);
  void (*quantize_each)(const float* x, B* y, int64_t n, const float* scale, const B* zero);
  void (*dequantize)(const B* x, float* y, int64_t n, float scale, int32_t zero);
  void (*dequantize_each)(const B* x, float* y, int64_t n, const float* scale, const B* zero);
  /// Sum and bias wrap as 32 bits.
  void (*requantize)(const int32_t* sum, B* y, int64_t n, float factor, int32_t bias, int32_t zero);
  /// The same of sums that are whole floats, within 2^24 as is the bias.
  void (*requantize_whole)(const float* sum, B* y, int64_t n, float factor, float bias, int32_t zero);
  void (*requantize_each)(const int32_t* sum, B* y, int64_t n, const float* factor, const int32_t* bias, int32_t zero);
};

struct QuantizeKernels {
  const char* (*compiled_isa)();
  ByteKernels<uint8_t> u8;
  ByteKernels<int8_t> i8;
  void (*dequantize_i32)(const int32_t* x, float* y, int64_t n, float scale);
  void (*dequantize_i32_each)(const int32_t* x, float* y, int64_t n, const float* scale);
  /// Moves *low and *high apart until they hold x; NaN does not count.
  void (*widen_range)(const float* x, int64_t n, float* low, float* high);
  /// Rounds a row by its own range, which always holds 0: x is near (y - *zero) times the scale that is returned. That
  /// is no number where an x is not finite.
  float (*quantize_row)(const float* x, uint8_t* y, int64_t n, uint8_t* zero);

  template <class B>
  const ByteKernels<B>& bytes() const;
};
template <>
inline const ByteKernels<uint8_t>& QuantizeKernels::bytes<uint8_t>() const {
  return u8;
}
template <>
inline const ByteKernels<int8_t>& QuantizeKernels::bytes<int8_t>() const {
  return i8;
}

const QuantizeKernels& quantize_kernels();  // of the active tier
const QuantizeKernels& quantize_kernels(Isa isa);

}  // namespace inferkit::kernels
