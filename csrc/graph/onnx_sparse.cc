// Sparse tensors become dense ones when the model is loaded.
#include <cstring>

#include "base/counted.h"
#include "base/text.h"
#include "graph/onnx_tensor.h"
#include "platform/run_control.h"

namespace inferkit::onnx {
namespace {

/// Where element `i` lies, by its index in the dense tensor or by one index for each dimension.
int64_t place_of(const int64_t* indices, bool linear, int64_t i, const Shape& shape, int64_t count,
                 const std::string& what) {
  if (linear) {
    if (indices[i] < 0 || indices[i] >= count) fail(what, cat("has the index ", indices[i], ", out of its ", count));
    return indices[i];
  }
  int64_t place = 0;
  for (size_t d = 0; d < shape.rank(); ++d) {
    const int64_t index = indices[i * static_cast<int64_t>(shape.rank()) + static_cast<int64_t>(d)];
    if (index < 0 || index >= shape[d])
      fail(what, cat("has the index ", index, " in dimension ", d, " of its shape ", shape.str()));
    place = place * shape[d] + index;
  }
  return place;
}

}  // namespace

Tensor TensorLoader::load_sparse(const SparseTensorProto& proto, const std::string& what) {
  if (!proto.values) fail(what, "has no values");
  if (proto.dims.size() > Shape::kMaxRank)
    throw Error(ErrorCode::kUnsupportedOp, cat(what, " has more than ", Shape::kMaxRank, " dimensions"));
  const Shape shape(proto.dims);
  for (const int64_t d : shape)
    if (d < 0) fail(what, cat("has the negative dimension ", d));
  const Tensor values = load(*proto.values, what);
  if (values.shape.rank() != 1) fail(what, cat("has values of shape ", values.shape.str(), "; expected a list"));
  if (values.dtype == DType::kString)
    throw Error(ErrorCode::kUnsupportedOp,
                cat(what, " is a sparse tensor of strings, which inferkit does not support"));
  const int64_t stored = values.shape[0];
  Tensor indices;
  bool linear = true;
  if (proto.indices) {
    indices = load(*proto.indices, cat(what, ", its indices,"));
    linear = indices.shape.rank() == 1;
    const Shape wanted = linear ? Shape{stored} : Shape{stored, static_cast<int64_t>(shape.rank())};
    if (indices.dtype != DType::kI64 || indices.shape != wanted)
      fail(what, cat("has indices of ", dtype_name(indices.dtype), " and shape ", indices.shape.str(), " for ",
                     counted(stored, "value"), "; expected int64, one for each or one for each of ",
                     counted(shape.rank(), "dimension")));
  } else if (stored > 0) {
    fail(what, "has values without indices");
  }
  const auto count = shape.checked_elements();
  const size_t size = dtype_size(values.dtype);
  size_t bytes = 0;
  if (!count || __builtin_mul_overflow(static_cast<size_t>(*count), size, &bytes))
    fail(what, cat("has the impossible shape ", shape.str()));
  // What a file asks for follows what it holds: a few bytes may not claim all memory.
  constexpr size_t kPerValue = 4096;
  sparse_allowance_ += kPerValue * static_cast<size_t>(stored);
  if (bytes > sparse_allowance_)
    fail(what,
         cat("would take ", counted(bytes, "byte"), " as a dense tensor, too many for its ", counted(stored, "value")));
  sparse_allowance_ -= bytes;

  void* out = nullptr;
  Tensor tensor = make_tensor(values.dtype, shape, &out);
  std::memset(out, 0, bytes);
  const auto* from = static_cast<const std::byte*>(values.data);
  int64_t before = -1;
  constexpr int64_t kPart = int64_t{1} << 20;  // some milliseconds
  for (int64_t i = 0; i < stored; ++i) {
    if (i % kPart == 0) RunControl::check();
    const int64_t place = place_of(indices.as<int64_t>(), linear, i, shape, *count, what);
    if (place <= before) fail(what, "has indices that do not go up");
    before = place;
    std::memcpy(static_cast<std::byte*>(out) + static_cast<size_t>(place) * size, from + static_cast<size_t>(i) * size,
                size);
  }
  return tensor;
}

}  // namespace inferkit::onnx
