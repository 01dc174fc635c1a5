// Protobuf's wire format: a cursor over the fields of one message. Nothing is read outside the span; what is malformed
// (truncated, an overlong varint, groups, field 0) is an Error(kModel). Unknown fields are the caller's to skip, at no
// cost.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/error.h"
#include "platform/run_control.h"

namespace inferkit {

static_assert(std::endian::native == std::endian::little, "ONNX data are little-endian and read in place");

using Bytes = std::span<const std::byte>;

enum class WireType : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

class WireReader {
 public:
  /// `message` is the name of the message type, for errors; it must outlive the reader.
  WireReader(Bytes bytes, const char* message)
      : p_(bytes.data()), end_(bytes.data() + bytes.size()), message_(message) {}

  /// Moves to the next field; false at the end of the message.
  bool next() {
    if (p_ == end_) return false;
    if (++fields_ % kFieldsBetweenChecks == 0) RunControl::check();
    const uint64_t tag = read_varint();
    number_ = static_cast<uint32_t>(tag >> 3);
    if (tag >> 32 || number_ == 0) fail("an impossible field tag");
    switch (tag & 7) {
      case 0:
        type_ = WireType::kVarint;
        value_ = read_varint();
        break;
      case 1:
        type_ = WireType::kFixed64;
        value_ = read_fixed<uint64_t>();
        break;
      case 2: {
        type_ = WireType::kBytes;
        const uint64_t length = read_varint();
        if (length > static_cast<uint64_t>(end_ - p_)) fail("a length that runs past the end (a truncated file?)");
        payload_ = Bytes(p_, static_cast<size_t>(length));
        p_ += length;
        break;
      }
      case 5:
        type_ = WireType::kFixed32;
        value_ = read_fixed<uint32_t>();
        break;
      default:
        fail("a field of a type that ONNX does not use");
    }
    return true;
  }

  uint32_t number() const { return number_; }
  WireType type() const { return type_; }

  int64_t as_int64() const {
    expect(WireType::kVarint);
    return static_cast<int64_t>(value_);
  }
  uint64_t as_uint64() const {
    expect(WireType::kVarint);
    return value_;
  }
  /// Enums and int32: protobuf keeps the low 32 bits.
  int32_t as_int32() const {
    expect(WireType::kVarint);
    return static_cast<int32_t>(static_cast<uint32_t>(value_));
  }
  float as_float() const {
    expect(WireType::kFixed32);
    return std::bit_cast<float>(static_cast<uint32_t>(value_));
  }
  double as_double() const {
    expect(WireType::kFixed64);
    return std::bit_cast<double>(value_);
  }
  Bytes as_bytes() const {
    expect(WireType::kBytes);
    return payload_;
  }
  std::string_view as_text() const {
    const Bytes b = as_bytes();
    return {reinterpret_cast<const char*>(b.data()), b.size()};
  }

  /// A repeated varint field, packed or not: calls `visit(uint64_t)` for each element that this occurrence holds.
  template <class Visit>
  void for_each_varint(Visit&& visit) const {
    if (type_ == WireType::kVarint) return visit(value_);
    WireReader packed(as_bytes(), message_);
    while (packed.p_ != packed.end_) visit(packed.read_varint());
  }
  /// A repeated fixed-width field (T: uint32_t or uint64_t), packed or not.
  template <class T, class Visit>
  void for_each_fixed(Visit&& visit) const {
    if (type_ == (sizeof(T) == 4 ? WireType::kFixed32 : WireType::kFixed64)) return visit(static_cast<T>(value_));
    WireReader packed(as_bytes(), message_);
    while (packed.p_ != packed.end_) visit(packed.template read_fixed<T>());
  }

  [[noreturn]] void fail(std::string_view what) const {
    throw Error(ErrorCode::kModel, cat("the ONNX file is malformed: ", message_, " holds ", what));
  }

 private:
  void expect(WireType type) const {
    if (type_ != type) fail(cat("field ", number_, " with the wrong wire type"));
  }
  uint64_t read_varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (p_ == end_) fail("a number that is cut off (a truncated file?)");
      const auto byte = static_cast<uint64_t>(*p_++);
      if (shift == 63 && byte > 1) break;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number of more than 64 bits");
  }
  template <class T>
  T read_fixed() {
    if (static_cast<size_t>(end_ - p_) < sizeof(T)) fail("a number that is cut off (a truncated file?)");
    T value;
    std::memcpy(&value, p_, sizeof(T));
    p_ += sizeof(T);
    return value;
  }

  const std::byte* p_;
  const std::byte* end_;
  const char* message_;
  static constexpr uint32_t kFieldsBetweenChecks = 1024;
  uint32_t fields_ = 0;
  uint32_t number_ = 0;
  WireType type_ = WireType::kVarint;
  uint64_t value_ = 0;
  Bytes payload_;
};

}  // namespace inferkit
