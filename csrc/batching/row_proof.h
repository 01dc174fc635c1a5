// Models whose number of rows is fixed: may a request have fewer?
#pragma once
#include <atomic>
#include <cstdint>
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
  /// Of the runner's model of this generation. Relaxed, both: they stand for no other memory, and who does not know yet
  /// finds the same.
  bool known(uint64_t generation) const { return verdict_of(generation) != kOpen; }
  bool rows_mix(uint64_t generation) const { return verdict_of(generation) == kMix; }
  /// What to tell a request that is less than a run.
  Status refusal(int64_t rows, int64_t fixed) const;

  /// `inputs` and `outputs` are those of a run of `layout` on this model. The first row of it runs twice more, as the
  /// last one: among zeros, and among multiples of itself (of bytes, what they leave). A wrapped callable is taken at
  /// its word. False where rows mix. It is not kept where those rows tell nothing, nor of a model that another took the
  /// place of.
  bool find_out(const HeldModel& model, BufferPool& pool, const RowLayout& layout, std::span<const TensorView> inputs,
                std::span<const TensorView> outputs);

 private:
  enum Verdict : uint64_t { kOpen, kApart, kMix };
  static constexpr uint64_t kVerdicts = 4;
  Verdict verdict_of(uint64_t generation) const {
    const uint64_t word = word_.load(std::memory_order_relaxed);
    return word / kVerdicts == generation ? Verdict(word % kVerdicts) : kOpen;
  }

  std::atomic<uint64_t> word_{kOpen};  // kVerdicts times the generation, and the verdict; only grows
};

}  // namespace inferkit
