#include "batching/swap_runner.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace inferkit {
namespace {

bool same_ports(std::span<const PortSpec> a, std::span<const PortSpec> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const PortSpec& x, const PortSpec& y) {
    return x.name == y.name && x.dtype == y.dtype && x.shape == y.shape;
  });
}

std::vector<PortSpec> copy_of(std::span<const PortSpec> ports) { return {ports.begin(), ports.end()}; }

}  // namespace

SwapRunner::SwapRunner(std::shared_ptr<Runner> first)
    : inputs_(copy_of(first->inputs())),
      outputs_(copy_of(first->outputs())),
      rows_mix_(first->rows_mix()),
      current_(std::move(first)) {}

std::shared_ptr<Runner> SwapRunner::swap(std::shared_ptr<Runner> next) {
  if (!same_ports(inputs_, next->inputs()) || !same_ports(outputs_, next->outputs())) {
    throw std::invalid_argument("the other model has other inputs or outputs");
  }
  if (next->rows_mix() != rows_mix_) {
    throw std::invalid_argument(
        rows_mix_ ? "the present model quantises its inputs as it runs, and so each request is a batch of its own; the "
                    "other does not: make a new Batcher for it"
                  : "the other model quantises its inputs as it runs, so that each request must be a batch of its own: "
                    "make a new Batcher for it");
  }
  const MutexLock lock(mutex_);
  // Release, and before the model as well as after it: a run between two equal numbers has one model.
  generation_.fetch_add(1, std::memory_order_release);
  auto before = std::exchange(current_, std::move(next));
  generation_.fetch_add(1, std::memory_order_release);
  return before;
}

std::shared_ptr<Runner> SwapRunner::current() const {
  const MutexLock lock(mutex_);
  return current_;
}

Status SwapRunner::run(std::span<const TensorView> inputs, OutputSink& sink) noexcept {
  const std::shared_ptr<Runner> runner = current();  // it may be swapped for another meanwhile
  return runner->run(inputs, sink);
}

}  // namespace inferkit
