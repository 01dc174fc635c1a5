// What comes in: is it a request that this model can take, and of how many rows?
#pragma once
#include <memory>
#include <span>

#include "base/validation.h"
#include "batching/layout.h"
#include "batching/options.h"
#include "batching/request.h"
#include "engine/runner.h"
#include "memory/buffer_pool.h"

namespace inferkit {

struct Checked {
  LayoutRef layout;
  int64_t rows = 0;
  bool single_row = false;
};

/// Immutable but for the layouts that it has seen; thread-safe.
class Intake {
 public:
  /// `inputs` belong to a Runner that outlives this. Throws std::invalid_argument where such a model cannot be batched:
  /// no input has a batch axis.
  Intake(std::span<const PortSpec> inputs, const BatcherOptions& options);

  /// Rows in a batch: max_batch_size, or the number that the model's first dimension is fixed at.
  int64_t max_rows() const { return max_rows_; }

  /// Everything but the values; those of shared inputs, by which requests are told apart, too. Throws
  /// Error(kValidation).
  Checked check(std::span<const StridedView> given);
  /// Copies the values to a buffer, where Request::inputs expects them, and checks them in the same pass; strings,
  /// which must lie as a tensor's, with their bytes. Throws Error(kValidation, kNonFinite) and Error(kPoolExhausted).
  Buffer copy(std::span<const StridedView> given, const Checked& checked, BufferPool& pool) const;
  /// Whether it is less than a run of a model whose number of rows is fixed, which is to be filled up.
  bool is_short(const Checked& checked) const { return checked.rows < fixed_rows_; }
  /// Only checks the values, for a run straight from the caller's memory.
  void scan(std::span<const StridedView> given) const;

 private:
  void copy_numbers(const StridedView& given, const Checked& checked, size_t index, std::byte* to) const;

  std::span<const PortSpec> inputs_;
  InputChecks checks_;
  LayoutTable layouts_;
  const int64_t fixed_rows_;  // 0: free
  const int64_t max_rows_;
  size_t first_batched_ = 0;
};

}  // namespace inferkit
