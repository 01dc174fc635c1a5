// What comes in: is it a request that this model can take, and of how many rows?
#pragma once
#include <atomic>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/validation.h"
#include "batching/layout.h"
#include "batching/options.h"
#include "batching/pad_cost.h"
#include "batching/pad_proof.h"
#include "batching/request.h"
#include "engine/runner.h"
#include "memory/buffer_pool.h"
#include "platform/mutex.h"

namespace inferkit {

struct Checked {
  LayoutRef layout;
  int64_t rows = 0;
  bool single_row = false;
  int64_t length = 0;  // see Request

  bool is_padded() const { return length != layout->length; }
};

/// Immutable but for the layouts that it has seen and what the present model gives a meaning to; thread-safe.
class Intake {
 public:
  /// `inputs` belong to a Runner that outlives this, as `proof` and `cost` do. Throws std::invalid_argument where such
  /// a model cannot be batched, as no input has a batch axis, or padded.
  Intake(std::span<const PortSpec> inputs, std::span<const InputSense> senses, const BatcherOptions& options,
         const PadProof& proof, PadCost& cost);

  using Checks = std::vector<PortChecks>;  // one for each input
  /// What is checked with a model that gives these meanings, where the checks are left to it. Lives as long as this.
  const Checks& checks_for(std::span<const InputSense> senses);
  /// What is checked from now on, by checks_for(). Release: who sees them sees what they are.
  void follow(const Checks& checks) noexcept { checks_.store(&checks, std::memory_order_release); }

  template <class Visit>
  void for_each_layout(Visit&& visit) {
    layouts_.for_each(visit);
  }
  /// Null where requests are not padded.
  const std::shared_ptr<const Padding>& padding() const { return padding_; }
  /// Rows in a batch: max_batch_size, or the number that the model's first dimension is fixed at.
  int64_t max_rows() const { return max_rows_; }

  /// Everything but the values; those of shared inputs, by which requests are told apart, too. Throws
  /// Error(kValidation).
  /// `generation` is the runner's.
  Checked check(std::span<const StridedView> given, uint64_t generation);
  /// Copies the values to a buffer, where Request::inputs expects them, and checks them in the same pass; strings,
  /// which must lie as a tensor's, with their bytes. Throws Error(kValidation, kNonFinite) and Error(kPoolExhausted).
  Buffer copy(std::span<const StridedView> given, const Checked& checked, BufferPool& pool) const;
  /// Whether it is less than a run of a model whose number of rows is fixed, which is to be filled up.
  bool is_short(const Checked& checked) const { return checked.rows < fixed_rows_; }
  /// Only checks the values, for a run straight from the caller's memory.
  void scan(std::span<const StridedView> given) const;

 private:
  int64_t length_of(std::span<const StridedView> given, bool single_row) const;
  void copy_numbers(const StridedView& given, const Checked& checked, size_t index, std::byte* to) const;
  const Checks& checks() const { return *checks_.load(std::memory_order_acquire); }

  std::span<const PortSpec> inputs_;
  const std::vector<InputChecks> asked_;
  const std::shared_ptr<const Padding> padding_;
  const PadProof& pad_proof_;
  PadCost& pad_cost_;
  Mutex mutex_;  // held to find some among the known, or add them
  /// All that have been in use: a request may be about to look at any of them. Equal ones are one.
  std::deque<Checks> known_ GUARDED_BY(mutex_);
  std::atomic<const Checks*> checks_{nullptr};
  LayoutTable layouts_;
  const int64_t max_elements_;
  const int64_t fixed_rows_;  // 0: free
  const int64_t max_rows_;
  size_t first_batched_ = 0;
};

}  // namespace inferkit
