// Where a tensor's elements are: a pointer, but for constants that lie at odd addresses of a file.
#pragma once
#include "memory/odd_bytes.h"

namespace inferkit {

/// Turns into the pointer wherever one is wanted. Where the elements lie at an odd address, that makes a copy of them,
/// under the conditions of OddBytes::aligned.
class TensorData {
 public:
  TensorData(const void* at = nullptr) : at_(at) {}
  /// The tensor's owner keeps `odd`.
  explicit TensorData(const OddBytes& odd) : at_(odd.place().data()), odd_(&odd) {}

  operator const void*() const { return odd_ ? odd_->aligned() : at_; }
  template <class T>
  explicit operator const T*() const {
    return static_cast<const T*>(static_cast<const void*>(*this));
  }
  /// Where the bytes lie, at whatever address: never a copy. What has one place is one constant.
  const std::byte* place() const { return static_cast<const std::byte*>(at_); }
  /// Null where they are read in their place.
  const OddBytes* odd() const { return odd_; }

  friend bool operator==(const TensorData& a, const TensorData& b) { return a.at_ == b.at_; }
  friend bool operator==(const TensorData& a, const void* b) { return static_cast<const void*>(a) == b; }

 private:
  const void* at_;
  const OddBytes* odd_ = nullptr;
};

}  // namespace inferkit
