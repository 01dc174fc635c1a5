#include "batching/padding.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>

#include "base/text.h"

namespace inferkit {

int64_t length_above(int64_t length) {
  constexpr int64_t kLeast = 8;
  if (length <= kLeast) return kLeast;
  if (length > int64_t{1} << 60) return length;
  // Steps of a quarter of the power of two below.
  const auto step = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(length - 1))) / 4;
  return (length + step - 1) / step * step;
}

Padding::Padding(PadOptions options, std::span<const PortSpec> inputs) : options_(std::move(options)) {
  bool some = false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const PortSpec& port = inputs[i];
    const size_t axis = options_.inputs.at(i).axis;
    if (port.shared && axis > 0) {
      throw std::invalid_argument(
          cat("pad: input ", quote(port.name),
              " is one value for all rows of a batch, which is not padded: leave it out of pad"));
    }
    if (!port.shared && port.shape.rank() > 0 && port.shape[0] != Shape::kFree) {
      throw std::invalid_argument(cat("input ", quote(port.name), " has a first dimension that is fixed at ",
                                      port.shape[0], ": requests to such a model cannot be padded"));
    }
    if (axis == 0) continue;
    if (!some) first_ = i;
    some = true;
    if (port.dtype == DType::kString) {
      throw std::invalid_argument(cat("pad: input ", quote(port.name), " is of strings, which cannot be padded"));
    }
    if (axis >= port.shape.rank()) {
      throw std::invalid_argument(cat("pad: input ", quote(port.name), " has the axes 0 to ", port.shape.rank() - 1,
                                      ", the batch's included; got ", axis));
    }
    if (port.shape[axis] != Shape::kFree) {
      throw std::invalid_argument(cat("pad: axis ", axis, " of input ", quote(port.name), " is fixed at ",
                                      port.shape[axis], ", so there is nothing to pad: leave it out of pad"));
    }
  }
  if (!some) throw std::invalid_argument("pad names no input: leave it out");
  const auto& lengths = options_.lengths;
  if (!std::ranges::is_sorted(lengths, std::less_equal<>()) || (!lengths.empty() && lengths[0] < 1)) {
    throw std::invalid_argument("pad_to must be lengths in ascending order, from 1 on, each of them once");
  }
  if (!lengths.empty()) options_.longest = lengths.back();
  if (options_.longest < 0 || options_.longest > kLongest) {
    throw std::invalid_argument(
        cat("pad_to must be lengths of at most ", kLongest, "; the longest is ", options_.longest));
  }
}

int64_t Padding::length_for(int64_t length) const {
  if (length < 1 || length > (options_.longest ? options_.longest : kLongest)) return length;
  if (options_.lengths.empty()) {
    const int64_t above = length_above(length);
    return std::min(above, options_.longest ? options_.longest : kLongest);
  }
  return *std::ranges::lower_bound(options_.lengths, length);
}

std::vector<int64_t> Padding::lengths(int64_t most) const {
  if (options_.longest) most = most > 0 ? std::min(most, options_.longest) : options_.longest;
  most = std::min(most, kLongest);  // beyond that there are none
  std::vector<int64_t> out;
  for (int64_t length = 1; length <= most; length = out.back() + 1) out.push_back(length_for(length));
  return out;
}

namespace {

template <class T>
void fill(std::byte* to, size_t bytes, const std::byte* element) {
  T value;
  std::memcpy(&value, element, sizeof value);
  for (size_t at = 0; at < bytes; at += sizeof value) std::memcpy(to + at, &value, sizeof value);
}

void fill(std::byte* to, size_t bytes, const std::byte* element, size_t size) {
  if (std::all_of(element, element + size, [&](std::byte b) { return b == element[0]; })) {
    std::memset(to, static_cast<int>(element[0]), bytes);
  } else if (size == 2) {
    fill<uint16_t>(to, bytes, element);
  } else if (size == 4) {
    fill<uint32_t>(to, bytes, element);
  } else {
    fill<uint64_t>(to, bytes, element);
  }
}

}  // namespace

void fill_up(const PaddedInput& input, DType dtype, const Shape& row, int64_t count, int64_t length,
             const std::byte* from, std::byte* to) {
  const size_t axis = input.axis - 1, size = dtype_size(dtype);
  const size_t place = static_cast<size_t>(row.elements(axis + 1, row.rank())) * size;
  const size_t given = static_cast<size_t>(length) * place;
  const size_t missing = static_cast<size_t>(row[axis] - length) * place;
  for (int64_t left = count * row.elements(0, axis); left > 0; --left) {
    if (given) std::memcpy(to, from, given);
    fill(to + given, missing, input.element.data(), size);
    from += given;
    to += given + missing;
  }
}

namespace {

/// What lies behind axis `axis` of `shape`, in bytes.
size_t behind(const Shape& shape, size_t axis, size_t element) {
  return static_cast<size_t>(shape.elements(axis + 1, shape.rank())) * element;
}

std::byte* move_together(std::byte* to, const std::byte* from, const Shape& shape, size_t axis, size_t last,
                         Axes follows, int64_t length, size_t element) {
  const size_t step = behind(shape, axis, element);
  const int64_t places = follows >> axis & 1 ? length : shape[axis];
  if (axis == last) {
    const size_t bytes = static_cast<size_t>(places) * step;
    if (to != from) std::memmove(to, from, bytes);
    return to + bytes;
  }
  for (int64_t i = 0; i < places; ++i) {
    to = move_together(to, from + static_cast<size_t>(i) * step, shape, axis + 1, last, follows, length, element);
  }
  return to;
}

}  // namespace

void cut_back(std::byte* rows, const Shape& shape, Axes follows, int64_t length, size_t element) {
  if (!follows) return;
  const size_t last = static_cast<size_t>(std::bit_width(follows)) - 1;
  move_together(rows, rows, shape, 0, last, follows, length, element);
}

Shape cut_shape(Shape shape, Axes follows, int64_t length) {
  for (size_t axis = 0; axis < shape.rank(); ++axis) {
    if (follows >> axis & 1) shape[axis] = length;
  }
  return shape;
}

}  // namespace inferkit
