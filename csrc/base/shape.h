// The dimensions of a tensor, kept inline: copying a shape never allocates.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>

namespace inferkit {

/// Up to kMaxRank dimensions. kFree (-1) marks a dimension that is not known until a request comes.
class Shape {
 public:
  static constexpr size_t kMaxRank = 8;
  static constexpr int64_t kFree = -1;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  /// Throws Error(kModel) where there are more than kMaxRank dimensions.
  explicit Shape(std::span<const int64_t> dims);

  size_t rank() const { return rank_; }
  bool empty() const { return rank_ == 0; }
  int64_t operator[](size_t i) const { return dims_[i]; }
  int64_t& operator[](size_t i) { return dims_[i]; }
  int64_t back() const { return dims_[rank_ - 1]; }
  const int64_t* begin() const { return dims_.data(); }
  const int64_t* end() const { return dims_.data() + rank_; }
  std::span<const int64_t> dims() const { return {dims_.data(), rank_}; }
  void push_back(int64_t dim);
  void erase(size_t i);
  void insert(size_t i, int64_t dim);

  bool is_concrete() const {
    return std::all_of(begin(), end(), [](int64_t d) { return d >= 0; });
  }
  /// The product of the dimensions (1 for a scalar). The shape must be concrete, and its count must have been checked
  /// with checked_elements where it came from outside.
  int64_t elements() const { return elements(0, rank_); }
  /// The product of dimensions [first, last).
  int64_t elements(size_t first, size_t last) const;
  /// As elements(), or nullopt where a dimension is negative or passes 2^40, or the product (zeros left out) 2^62.
  std::optional<int64_t> checked_elements() const;
  /// Row-major strides in elements.
  std::array<int64_t, kMaxRank> strides() const;

  bool operator==(const Shape& o) const { return std::equal(begin(), end(), o.begin(), o.end()); }
  /// "(2, None, 3)"; a free dimension prints as None.
  std::string str() const;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  uint8_t rank_ = 0;
};

/// The shape that numpy's broadcasting gives, or nullopt where the two do not fit.
std::optional<Shape> broadcast(const Shape& a, const Shape& b);
size_t hash_value(const Shape& shape);

}  // namespace inferkit
