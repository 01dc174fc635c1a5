#include "batching/swap_runner.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace inferkit {
namespace {

bool same_ports(std::span<const PortSpec> a, std::span<const PortSpec> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const PortSpec& x, const PortSpec& y) {
    return x.name == y.name && x.dtype == y.dtype && x.shape == y.shape && x.any_shape == y.any_shape &&
           x.is_list() == y.is_list() && x.shared == y.shared;
  });
}

template <class T>
std::vector<T> copy_of(std::span<const T> items) {
  return {items.begin(), items.end()};
}

}  // namespace

SwapRunner::SwapRunner(std::shared_ptr<Runner> first)
    : inputs_(copy_of(first->inputs())),
      outputs_(copy_of(first->outputs())),
      senses_(copy_of(first->senses())),
      rows_mix_(first->rows_mix()),
      needs_gil_(first->needs_gil()),
      values_decide_(first->values_decide()),
      threads_(first->threads()) {
  const MutexLock lock(mutex_);
  places_.emplace_back(0).runner = std::move(first);
  current_.store(&places_.back(), std::memory_order_relaxed);  // nobody else has this yet
}

std::shared_ptr<Runner> SwapRunner::swap(std::shared_ptr<Runner> next) {
  if (!same_ports(inputs_, next->inputs()) || !same_ports(outputs_, next->outputs())) {
    throw std::invalid_argument("the other model has other inputs or outputs");
  }
  if (next->rows_mix() != rows_mix_) {
    throw std::invalid_argument(
        rows_mix_
            ? "the present model combines the rows of a run, so each request is a batch of its own; the other does "
              "not: make a new Batcher for it"
            : "the other model combines the rows of a run, so each request must be a batch of its own: make a new "
              "Batcher for it");
  }
  const MutexLock lock(mutex_);
  Place& before = *current_.load(std::memory_order_relaxed);
  Place& now = places_.emplace_back(before.number + 1);
  const bool needs_gil = next->needs_gil(), values_decide = next->values_decide();
  threads_.store(next->threads(), std::memory_order_relaxed);
  now.runner = std::move(next);
  needs_gil_.store(needs_gil, std::memory_order_relaxed);
  values_decide_.store(values_decide, std::memory_order_relaxed);
  // Sequentially consistent, with what enter() and leave() do: a run that has the one before is seen here in its users,
  // or sees that it is replaced.
  current_.store(&now);
  return before.users.load() == 0 ? std::move(before.runner) : before.runner;
}

SwapRunner::Place& SwapRunner::enter() const {
  for (;;) {
    Place& place = *current_.load();
    place.users.fetch_add(1);
    if (current_.load() == &place) return place;
    leave(place);  // it was replaced meanwhile
  }
}

void SwapRunner::leave(Place& place) const {
  if (place.users.fetch_sub(1) == 1 && current_.load() != &place) retire(place);
}

void SwapRunner::end_use(Place& place) const {
  // A model learns this of itself while it runs.
  const bool values_decide = place.runner->values_decide();
  if (values_decide != values_decide_.load(std::memory_order_relaxed) && current_.load() == &place) {
    values_decide_.store(values_decide, std::memory_order_relaxed);
  }
  leave(place);
}

/// Lets go of a model that was replaced, where nobody uses it any more.
void SwapRunner::retire(Place& place) const {
  std::shared_ptr<Runner> last;  // ends after the lock: it may be a callable's, and run Python
  const MutexLock lock(mutex_);
  if (place.users.load() == 0) last = std::move(place.runner);
}

SwapRunner::Use::Use(const SwapRunner& of) : of_(of), place_(of.enter()) {}

Status SwapRunner::run(std::span<const TensorView> inputs, OutputSink& sink) noexcept {
  return Use(*this)->run(inputs, sink);
}

}  // namespace inferkit
