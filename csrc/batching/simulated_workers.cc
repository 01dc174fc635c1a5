#include "batching/simulated_workers.h"

#include <stdexcept>
#include <utility>

#include "base/text.h"

namespace inferkit {

/// It is never run: it says what goes in.
class SimulatedWorkers::Model final : public Runner {
 public:
  std::span<const PortSpec> inputs() const override { return {&port_, 1}; }
  std::span<const PortSpec> outputs() const override { return {&port_, 1}; }
  bool needs_gil() const override { return false; }
  int64_t estimate_nanos(std::span<const Shape> /*shapes*/) const override { return 1; }
  Status run(std::span<const TensorView> /*inputs*/, OutputSink& /*sink*/) noexcept override { return {}; }

 private:
  PortSpec port_{"x", DType::kF32, {Shape::kFree, 1}};
};

SimulatedWorkers::SimulatedWorkers(const SimulatedOptions& options)
    : clock_(0),
      model_(std::make_unique<Model>()),
      watch_(options.pace.target),
      predictor_(*model_),
      layout_(std::make_shared<RowLayout>(std::vector<Shape>{{1}}, std::vector<size_t>{sizeof(float)})),
      scheduler_({{options.max_rows, options.max_delay}, 0, options.workers, 0, pace(options)}, clock_, open_,
                 predictor_) {
  if (options.max_rows < 1 || options.max_delay < 0 || options.workers < 1) {
    throw std::invalid_argument("a simulation takes at least one row, one worker, and no negative delay");
  }
}

PaceOptions SimulatedWorkers::pace(const SimulatedOptions& options) {
  PaceOptions out = options.pace;
  out.workers = options.workers;
  out.watch = &watch_;
  return out;
}

SimulatedWorkers::~SimulatedWorkers() {
  RequestList left;
  scheduler_.clear(left);  // or they would give their places back to what is gone
}

void SimulatedWorkers::set(Nanos now) {
  if (now < clock_.now()) throw std::invalid_argument(cat("time goes back from ", clock_.now(), " to ", now));
  clock_.advance(now - clock_.now());
}

bool SimulatedWorkers::come(Nanos now, std::span<const uint64_t> requests, int64_t rows, Nanos deadline) {
  if (rows < 1) throw std::invalid_argument(cat("a request has at least one row, not ", rows));
  set(now);
  if (deadline != kNever) {
    if (deadline <= now) return false;
    const Outlook outlook = scheduler_.outlook(*layout_, rows, 0, deadline, now);
    if (!outlook.keeps(deadline)) return false;
  }
  std::vector<RequestRef> made;
  for (const uint64_t id : requests) {
    const RequestRef& request = made.emplace_back(new Request(layout_, rows, false, {.deadline = deadline, .id = id}));
    request->times.enqueued.store(now, std::memory_order_relaxed);
    request->place = scheduler_.try_reserve();
    request->advance(Phase::kWaiting, Phase::kQueued);
  }
  scheduler_.enqueue(made, false);
  return true;
}

std::optional<SimulatedWorkers::Started> SimulatedWorkers::take(Nanos now) {
  set(now);
  until_ = kNever;
  scheduler_.let_others_sleep();
  Batch batch;
  RequestList dropped;
  const auto all = [](const LayoutRef&, int64_t) { return true; };
  const bool taken = scheduler_.take(batch, dropped, all, &until_);
  while (const RequestRef request = dropped.pop()) {
    request->finish(Phase::kExpired);
    dropped_.push_back(request->id);
  }
  if (!taken) return std::nullopt;
  Started out{++started_, {}, batch.rows, batch.reason};
  for (const RequestRef& request : batch.requests) out.requests.push_back(request->id);
  running_.emplace(out.number, Running{std::move(batch), now});
  return out;
}

std::vector<uint64_t> SimulatedWorkers::dropped() { return std::exchange(dropped_, {}); }

void SimulatedWorkers::over(Nanos now, uint64_t number) {
  set(now);
  const auto found = running_.find(number);
  if (found == running_.end()) throw std::invalid_argument(cat("no batch of number ", number, " runs"));
  Running ran = std::move(found->second);
  running_.erase(found);
  predictor_.learn(*layout_, ran.batch.rows, now - ran.since, now);
  for (const RequestRef& request : ran.batch.requests) {
    watch_.answered(now - request->times.enqueued.load(std::memory_order_relaxed));
    request->finish(Phase::kResult);
  }
  ran.batch.slot.release(true);
}

}  // namespace inferkit
