// Models whose number of rows is fixed: may a request have fewer?
#pragma once
#include <atomic>
#include <span>

#include "batching/layout.h"
#include "engine/runner.h"
#include "memory/buffer_pool.h"

namespace inferkit {

/// Whether a row's answer is the same wherever it stands in a run, and whatever stands beside it: only then may a run
/// be filled up, or shared by requests. Found out once, by two runs of the model beside the first one that needs to
/// know. Thread-safe.
class RowProof {
 public:
  /// Relaxed, both: they stand for no other memory, and who does not know yet finds the same.
  bool known() const { return verdict_.load(std::memory_order_relaxed) != kOpen; }
  bool rows_mix() const { return verdict_.load(std::memory_order_relaxed) == kMix; }
  /// What to tell a request that is less than a run.
  Status refusal(int64_t rows, int64_t fixed) const;

  /// `inputs` and `outputs` are those of a run of `layout`. The first row of it runs twice more, as the last one: among
  /// zeros, and among multiples of itself. A wrapped callable is taken at its word.
  void find_out(Runner& runner, BufferPool& pool, const RowLayout& layout, std::span<const TensorView> inputs,
                std::span<const TensorView> outputs);

 private:
  enum Verdict { kOpen, kApart, kMix };
  std::atomic<Verdict> verdict_{kOpen};
};

}  // namespace inferkit
