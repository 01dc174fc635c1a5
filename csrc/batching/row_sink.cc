#include "batching/row_sink.h"

#include <algorithm>

namespace inferkit {

void RowSink::prepare(int64_t rows) {
  rows_ = rows;
  std::fill(views_.begin(), views_.end(), TensorView{});
}

void* RowSink::allocate(size_t index, DType dtype, const Shape& shape) {
  if (index >= views_.size()) {
    throw Error(ErrorCode::kOutput, Reason::kShape,
                cat("the model returned output number ", index, ", but has only ", views_.size()));
  }
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
