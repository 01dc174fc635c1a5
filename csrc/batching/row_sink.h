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
  explicit RowSink(std::span<const PortSpec> specs) : specs_(specs), views_(specs.size()) {}

  void prepare(int64_t rows);
  /// Throws Error(kOutput, kShape) where the first dimension is not the number of rows.
  void* allocate(size_t index, DType dtype, const Shape& shape) final;
  /// After a run: kOk where every output came.
  Status complete() const;
  std::span<const TensorView> views() const { return views_; }

 protected:
  virtual void* memory(size_t index, DType dtype, const Shape& shape) = 0;

 private:
  std::span<const PortSpec> specs_;
  std::vector<TensorView> views_;
  int64_t rows_ = 0;
};

/// Puts the outputs into pooled buffers, for the requests of the batch to share.
class PooledSink final : public RowSink {
 public:
  PooledSink(std::span<const PortSpec> specs, BufferPool& pool) : RowSink(specs), specs_(specs), pool_(pool) {}
  IntrusivePtr<BatchOutputs> take() { return std::move(outputs_); }

 protected:
  void* memory(size_t index, DType dtype, const Shape& shape) override;

 private:
  std::span<const PortSpec> specs_;
  BufferPool& pool_;
  IntrusivePtr<BatchOutputs> outputs_;
};

}  // namespace inferkit
