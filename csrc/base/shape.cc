#include "base/shape.h"

#include "base/counted.h"
#include "base/error.h"

namespace inferkit {

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank) {
    throw Error(ErrorCode::kModel,
                cat("a tensor has ", counted(dims.size(), "dimension"), "; at most ", kMaxRank, " are supported"));
  }
  std::copy(dims.begin(), dims.end(), dims_.begin());
  rank_ = static_cast<uint8_t>(dims.size());
}

void Shape::push_back(int64_t dim) { insert(rank_, dim); }

void Shape::insert(size_t i, int64_t dim) {
  if (rank_ == kMaxRank) throw Error(ErrorCode::kModel, cat("a tensor has more than ", kMaxRank, " dimensions"));
  std::copy_backward(dims_.begin() + i, dims_.begin() + rank_, dims_.begin() + rank_ + 1);
  dims_[i] = dim;
  ++rank_;
}

void Shape::erase(size_t i) {
  std::copy(dims_.begin() + i + 1, dims_.begin() + rank_, dims_.begin() + i);
  --rank_;
}

int64_t Shape::elements(size_t first, size_t last) const {
  int64_t count = 1;
  for (size_t i = first; i < last; ++i) count *= dims_[i];
  return count;
}

std::optional<int64_t> Shape::checked_elements() const {
  // Also where there are no elements, so that rules can add and multiply dimensions without overflow.
  constexpr int64_t kLimit = int64_t{1} << 62, kMostOfOne = int64_t{1} << 40;
  bool zero = false;
  int64_t count = 1;
  for (int64_t d : *this) {
    if (d < 0 || d > kMostOfOne) return std::nullopt;
    if (d == 0) {
      zero = true;
    } else if (__builtin_mul_overflow(count, d, &count) || count > kLimit) {
      return std::nullopt;
    }
  }
  return zero ? 0 : count;
}

std::array<int64_t, Shape::kMaxRank> Shape::strides() const {
  std::array<int64_t, kMaxRank> out{};
  int64_t step = 1;
  for (size_t i = rank_; i-- > 0;) {
    out[i] = step;
    step *= dims_[i];
  }
  return out;
}

std::string Shape::str() const {
  std::string out = "(";
  for (size_t i = 0; i < rank_; ++i) {
    if (i) out += ", ";
    out += dims_[i] == kFree ? "None" : std::to_string(dims_[i]);
  }
  if (rank_ == 1) out += ",";
  return out + ")";
}

std::optional<Shape> broadcast(const Shape& a, const Shape& b) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape out = longer;
  const size_t lead = longer.rank() - shorter.rank();
  for (size_t i = 0; i < shorter.rank(); ++i) {
    const int64_t x = longer[lead + i], y = shorter[i];
    if (x == y || y == 1) continue;
    if (x != 1) return std::nullopt;
    out[lead + i] = y;
  }
  return out;
}

size_t hash_value(const Shape& shape) {
  size_t h = shape.rank();
  for (int64_t d : shape) h = (h ^ static_cast<size_t>(d)) * 0x9e3779b97f4a7c15ull + (h >> 29);
  return h;
}

}  // namespace inferkit
