// A model that another may take the place of while requests come.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "engine/runner.h"
#include "platform/mutex.h"

namespace inferkit {

/// Runs whatever model it holds at the moment; a run that has begun goes on with its own, which lives until then.
/// Thread-safe; runs take no lock.
class SwapRunner final : public Runner {
 public:
  explicit SwapRunner(std::shared_ptr<Runner> first);

  /// What begins from now on runs on `next`, whose ports are the same. Returns the one before. Throws
  /// std::invalid_argument where `next` is no substitute.
  std::shared_ptr<Runner> swap(std::shared_ptr<Runner> next);

  std::span<const PortSpec> inputs() const override { return inputs_; }
  std::span<const PortSpec> outputs() const override { return outputs_; }
  /// The first model's; those of another are its own to ask for.
  std::span<const InputSense> senses() const override { return senses_; }
  Status run(std::span<const TensorView> inputs, OutputSink& sink) noexcept override;
  /// Relaxed: a run of a model that needs the GIL takes it, whatever was said before it.
  bool needs_gil() const override { return needs_gil_.load(std::memory_order_relaxed); }
  int64_t estimate_nanos(std::span<const Shape> shapes) const override { return Use(*this)->estimate_nanos(shapes); }
  int threads() const override { return threads_.load(std::memory_order_relaxed); }
  /// As of the last use's end: each request asks, and need not hold the model for that.
  bool values_decide() const override { return values_decide_.load(std::memory_order_relaxed); }
  bool rows_mix() const override { return rows_mix_; }
  bool rows_draw() const override { return Use(*this)->rows_draw(); }
  /// Acquire: who sees the number sees the model, too.
  uint64_t generation() const override { return current_.load(std::memory_order_acquire)->number; }
  HeldModel hold() noexcept override {
    Place& place = enter();
    return {*place.runner, place.number, this, &place};
  }

 private:
  /// One model that it holds or has held; without the model once that has been replaced and no run uses it. A thread
  /// may be about to look at it for as long as this lives, so it stays. The number stands here, so that who has the one
  /// has the other.
  struct Place {
    explicit Place(uint64_t number_) : number(number_) {}
    const uint64_t number;
    std::shared_ptr<Runner> runner;
    std::atomic<int64_t> users{0};
  };

  /// Keeps the present model alive.
  class Use {
   public:
    explicit Use(const SwapRunner& of);
    ~Use() { of_.end_use(place_); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    Runner* operator->() const { return place_.runner.get(); }

   private:
    const SwapRunner& of_;
    Place& place_;
  };

  void let_go(void* place) noexcept override { end_use(*static_cast<Place*>(place)); }
  Place& enter() const;
  void leave(Place& place) const;
  /// leave(), of a place that has its model.
  void end_use(Place& place) const;
  void retire(Place& place) const;

  const std::vector<PortSpec> inputs_, outputs_;
  const std::vector<InputSense> senses_;
  const bool rows_mix_;
  mutable Mutex mutex_;  // one swap at a time; guards the runners of places that are not the present one
  std::deque<Place> places_ GUARDED_BY(mutex_);
  std::atomic<Place*> current_;
  std::atomic<bool> needs_gil_;
  mutable std::atomic<bool> values_decide_;  // relaxed: the next use puts right what one of the model before it left
  std::atomic<int> threads_;                 // relaxed: a run counts as what the model before it used
};

}  // namespace inferkit
