// A model for tests: y = 2 x + 1 for one input of any row shape, with what the tests want to see or to go wrong.
#pragma once
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "batching/batcher.h"
#include "engine/runner.h"

namespace inferkit::testing {

class FakeRunner final : public Runner {
 public:
  static constexpr float kPoison = 666;   // a batch that holds it fails
  static constexpr float kNaNBack = 333;  // a row that holds it answers NaN

  explicit FakeRunner(Shape shape = {Shape::kFree, 2}) {
    inputs_.push_back({"x", DType::kF32, shape});
    outputs_.push_back({"y", DType::kF32, shape});
  }

  std::span<const PortSpec> inputs() const override { return inputs_; }
  std::span<const PortSpec> outputs() const override { return outputs_; }
  bool needs_gil() const override { return false; }
  int64_t estimate_nanos(std::span<const Shape> shapes) const override { return estimate_per_row * shapes[0][0]; }
  bool values_decide() const override { return by_values; }
  bool rows_mix() const override { return mixes; }
  uint64_t generation() const override { return number.load(); }

  Status run(std::span<const TensorView> inputs, OutputSink& sink) noexcept override {
    try {
      const TensorView& x = inputs[0];
      {
        std::unique_lock lock(mutex_);
        batches_.push_back(x.shape);
        ++running_;
        changed_.notify_all();
        changed_.wait(lock, [&] { return open_; });
      }
      if (on_run) on_run();
      if (longest && x.shape.rank() > 1 && x.shape[1] > longest) {
        return {ErrorCode::kInference, Reason::kNone, "too long", nullptr};
      }
      bool poisoned = false;
      for (int64_t i = 0; i < x.shape.elements(); ++i) poisoned |= x.as<float>()[i] == kPoison;
      if (poisoned) return {poison, Reason::kNone, "poisoned", nullptr};
      Shape shape = x.shape;
      if (drop_batch_axis) shape.erase(0);
      float* y = static_cast<float*>(sink.allocate(0, DType::kF32, shape));
      for (int64_t i = 0; i < x.shape.elements(); ++i) {
        const float v = x.as<float>()[i];
        y[i] = v == kNaNBack ? __builtin_nanf("") : 2 * v + 1;
        if (sees_neighbours) y[i] += x.as<float>()[(i + 1) % x.shape.elements()];
      }
      return {};
    } catch (...) {
      return current_exception_status();
    }
  }

  /// While shut, runs wait inside.
  void shut() {
    std::lock_guard lock(mutex_);
    open_ = false;
  }
  void open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  /// Sleeps until `count` runs have begun.
  void wait_for_runs(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return batches_.size() >= count; });
  }
  std::vector<Shape> batches() {
    std::lock_guard lock(mutex_);
    return batches_;
  }

  int64_t estimate_per_row = 1000;
  bool by_values = false;
  bool mixes = false;                        // to be set before the batcher is made
  ErrorCode poison = ErrorCode::kInference;  // what a batch fails with
  bool drop_batch_axis = false;
  int64_t longest = 0;           // of the second axis; 0: any
  bool sees_neighbours = false;  // a row's answer has something of the next one's
  std::function<void()> on_run;
  std::atomic<uint64_t> number{0};  // as if it had taken another's place

 private:
  std::vector<PortSpec> inputs_, outputs_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Shape> batches_;
  int running_ = 0;
  bool open_ = true;
};

/// A batcher, its model and its pool.
struct Rig {
  explicit Rig(BatcherOptions options = {}, Shape shape = {Shape::kFree, 2},
               const Clock& clock = SteadyClock::instance())
      : model(std::make_shared<FakeRunner>(shape)),
        pool(std::make_shared<BufferPool>()),
        batcher(std::make_unique<Batcher>(model, options, pool, clock)) {}

  RequestRef submit(const std::vector<float>& values, Shape shape, SubmitOptions options = {}) {
    return batcher->submit(std::vector{StridedView::contiguous({DType::kF32, shape, values.data()})}, options);
  }
  RequestRef row(float a, SubmitOptions options = {}) { return submit({a, a}, {2}, options); }

  std::shared_ptr<FakeRunner> model;
  std::shared_ptr<BufferPool> pool;
  std::unique_ptr<Batcher> batcher;
};

inline std::vector<float> answer(const Request& request) {
  const TensorView part = request.part_of(request.outputs->outputs[0]);
  return {part.as<float>(), part.as<float>() + part.shape.elements()};
}

/// The error that `call` throws.
inline Status error_of(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.status();
  }
  return {};
}

}  // namespace inferkit::testing
