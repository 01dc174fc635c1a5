#include "batching/row_sink.h"

#include <algorithm>

namespace inferkit {

void RowSink::prepare(int64_t rows) {
  rows_ = rows;
  std::fill(views_.begin(), views_.end(), TensorView{});
}

namespace {

/// Whether `shape` is that of one row where the declared one begins with the rows: what a Squeeze without axes leaves
/// of a batch of one.
bool lacks_rows(const Shape& shape, const PortSpec& spec) {
  if (spec.any_shape || shape.rank() + 1 != spec.shape.rank()) return false;
  for (size_t i = 0; i < shape.rank(); ++i) {
    if (spec.shape[i + 1] != Shape::kFree && spec.shape[i + 1] != shape[i]) return false;
  }
  return true;
}

}  // namespace

void* RowSink::allocate(size_t index, DType dtype, const Shape& given) {
  if (index >= views_.size()) {
    throw Error(ErrorCode::kOutput, Reason::kShape,
                cat("the model returned output number ", index, ", but has only ", views_.size()));
  }
  Shape shape = given;
  if (rows_ == 1 && lacks_rows(shape, specs_[index])) shape.insert(0, 1);  // it answers alone as it does in a batch
  if (shape.empty() || shape[0] != rows_) {
    throw Error(ErrorCode::kOutput, Reason::kShape,
                cat("output '", specs_[index].name, "' has shape ", shape.str(),
                    "; a Batcher needs the first dimension of every output to be the batch, here ", rows_,
                    ": call the model directly"));
  }
  void* data = memory(index, dtype, shape);
  views_[index] = {dtype, shape, data};
  return data;
}

char* RowSink::allocate_text(size_t index, size_t bytes) {
  Buffer& text = text_memory(index);
  text = pool_.acquire(std::max<size_t>(bytes, 1), "output strings");
  return text.as<char>();
}

Status RowSink::complete() const {
  for (size_t i = 0; i < views_.size(); ++i) {
    if (!views_[i].data) {
      return {ErrorCode::kOutput, Reason::kShape, cat("the model did not return output '", specs_[i].name, "'"),
              nullptr};
    }
  }
  return {};
}

void* PooledSink::memory(size_t index, DType dtype, const Shape& shape) {
  if (!outputs_) {
    outputs_ = IntrusivePtr<BatchOutputs>(new BatchOutputs);
    outputs_->outputs.resize(specs_.size());
  }
  BatchOutput& output = outputs_->outputs[index];
  const size_t bytes = TensorView{dtype, shape, nullptr}.bytes();
  output.dtype = dtype;
  output.shape = shape;
  output.buffer = pool_.acquire(std::max<size_t>(bytes, 1), "batch output");
  return output.buffer.data();
}

}  // namespace inferkit
