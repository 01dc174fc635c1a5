// Takes a batch's outputs and holds the model to its word: one row of every output for every row that went in.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "batching/request.h"
#include "engine/runner.h"
#include "memory/buffer_pool.h"

namespace inferkit {

/// Used for one run at a time; prepare() makes it ready for the next.
class RowSink : public OutputSink {
 public:
  RowSink(std::span<const PortSpec> specs, BufferPool& pool) : specs_(specs), pool_(pool), views_(specs.size()) {}

  void prepare(int64_t rows);
  /// Throws Error(kOutput, kShape) where the first dimension is not the number of rows. That may be missing where there
  /// is one row.
  void* allocate(size_t index, DType dtype, const Shape& shape) final;
  char* allocate_text(size_t index, size_t bytes) final;
  /// After a run: kOk where every output came.
  Status complete() const;
  std::span<const TensorView> views() const { return views_; }

 protected:
  virtual void* memory(size_t index, DType dtype, const Shape& shape) = 0;
  /// Where the bytes go that the strings of an output show.
  virtual Buffer& text_memory(size_t index) = 0;

 private:
  std::span<const PortSpec> specs_;
  BufferPool& pool_;
  std::vector<TensorView> views_;
  int64_t rows_ = 0;
};

/// Puts the outputs into pooled buffers, for the requests of the batch to share.
class PooledSink final : public RowSink {
 public:
  PooledSink(std::span<const PortSpec> specs, BufferPool& pool) : RowSink(specs, pool), specs_(specs), pool_(pool) {}
  IntrusivePtr<BatchOutputs> take() { return std::move(outputs_); }

 protected:
  void* memory(size_t index, DType dtype, const Shape& shape) override;
  Buffer& text_memory(size_t index) override { return outputs_->outputs[index].text; }

 private:
  std::span<const PortSpec> specs_;
  BufferPool& pool_;
  IntrusivePtr<BatchOutputs> outputs_;
};

}  // namespace inferkit
