#include "graph/text_tensor.h"

#include <cstring>
#include <memory>
#include <new>
#include <vector>

namespace inferkit {
namespace {
/// Does it show the very bytes that the one before it shows?
bool repeats(std::span<const std::string_view> values, size_t i) {
  return i > 0 && values[i].data() == values[i - 1].data() && values[i].size() == values[i - 1].size();
}
}  // namespace

size_t text_bytes(std::span<const std::string_view> values) {
  size_t bytes = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!repeats(values, i) && __builtin_add_overflow(bytes, values[i].size(), &bytes)) throw std::bad_alloc();
  }
  return bytes;
}

Tensor text_tensor(const Shape& shape, std::span<const std::string_view> values) {
  struct Owned {
    Tensor views;
    std::string bytes;
  };
  const auto owned = std::make_shared<Owned>();
  owned->bytes.reserve(text_bytes(values));
  void* data = nullptr;
  owned->views = make_tensor(DType::kString, shape, &data);
  auto* views = static_cast<std::string_view*>(data);
  for (size_t i = 0; i < values.size(); ++i) {
    if (!repeats(values, i)) owned->bytes += values[i];
    views[i] = {owned->bytes.data() + owned->bytes.size() - values[i].size(), values[i].size()};
  }
  return {DType::kString, shape, data, owned};
}

Tensor text_tensor(const Shape& shape, std::span<const std::string> values) {
  return text_tensor(shape, std::vector<std::string_view>(values.begin(), values.end()));
}

Tensor copied(const TensorView& value) {
  if (value.dtype == DType::kString) {
    return text_tensor(value.shape, strings_of(value));
  }
  void* data = nullptr;
  Tensor out = make_tensor(value.dtype, value.shape, &data);
  if (const size_t bytes = value.bytes()) std::memcpy(data, value.data, bytes);
  return out;
}

}  // namespace inferkit
