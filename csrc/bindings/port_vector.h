// One element for each input or output of a model, mostly a few.
#pragma once
#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace inferkit {

/// A vector of a fixed size whose first few elements need no allocation.
template <class T, size_t kInline = 8>
class PortVector {
 public:
  explicit PortVector(size_t size) : size_(size) {
    if (size > kInline) heap_.resize(size);
  }
  T* data() { return size_ > kInline ? heap_.data() : inline_.data(); }
  const T* data() const { return size_ > kInline ? heap_.data() : inline_.data(); }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  size_t size() const { return size_; }
  std::span<T> span() { return {data(), size_}; }
  std::span<const T> span() const { return {data(), size_}; }

 private:
  size_t size_;
  std::array<T, kInline> inline_{};
  std::vector<T> heap_;
};

}  // namespace inferkit
