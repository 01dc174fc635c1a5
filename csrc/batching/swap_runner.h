// A model that another may take the place of while requests come.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/runner.h"
#include "platform/mutex.h"

namespace inferkit {

/// Runs whatever model it holds at the moment; a run that has begun goes on with its own. Thread-safe.
class SwapRunner final : public Runner {
 public:
  explicit SwapRunner(std::shared_ptr<Runner> first);

  /// What begins from now on runs on `next`, whose ports are the same. Returns the one before. Throws
  /// std::invalid_argument where `next` is no substitute.
  std::shared_ptr<Runner> swap(std::shared_ptr<Runner> next);

  std::span<const PortSpec> inputs() const override { return inputs_; }
  std::span<const PortSpec> outputs() const override { return outputs_; }
  Status run(std::span<const TensorView> inputs, OutputSink& sink) noexcept override;
  bool needs_gil() const override { return current()->needs_gil(); }
  int64_t estimate_nanos(std::span<const Shape> shapes) const override { return current()->estimate_nanos(shapes); }
  bool values_decide() const override { return current()->values_decide(); }
  bool rows_mix() const override { return rows_mix_; }
  /// Acquire: who sees the number sees the model, too.
  uint64_t generation() const override { return generation_.load(std::memory_order_acquire); }

 private:
  std::shared_ptr<Runner> current() const;

  const std::vector<PortSpec> inputs_, outputs_;
  const bool rows_mix_;
  mutable Mutex mutex_;  // guards current_; held to copy it
  std::shared_ptr<Runner> current_ GUARDED_BY(mutex_);
  std::atomic<uint64_t> generation_{0};
};

}  // namespace inferkit
