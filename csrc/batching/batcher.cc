#include "batching/batcher.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <system_error>

#include "base/counted.h"
#include "base/text.h"
#include "platform/futex.h"

namespace inferkit {
namespace {

constexpr size_t kWatchedRuns = 1024;  // more at once is more than the workers there may be

BatcherOptions checked(BatcherOptions o) {
  const auto require = [](bool holds, const std::string& message) {
    if (!holds) throw std::invalid_argument(message);
  };
  require(o.max_batch_size >= 1, cat("max_batch_size must be at least 1, not ", o.max_batch_size));
  require(o.max_batch_elements >= 0, cat("max_batch_elements must not be negative: ", o.max_batch_elements));
  require(o.max_delay >= 0, "max_delay must not be negative");
  require(o.pace.target >= 0 && o.pace.longest >= 0, "a target and a delay must not be negative");
  require(o.ageing >= 0, "ageing must not be negative");
  require(o.workers >= 1 && o.workers <= 1024, cat("workers must be between 1 and 1024, not ", o.workers));
  require(o.weight >= 1e-3 && o.weight <= 1e3, cat("weight must be between 0.001 and 1000, not ", o.weight));
  require(o.max_concurrent >= 0, cat("max_concurrent must not be negative: ", o.max_concurrent));
  require(o.trace_size <= size_t{1} << 24, cat("trace_size must be at most ", size_t{1} << 24, ", not ", o.trace_size));
  require(o.max_tag_sets >= 1 && o.max_tag_sets <= TagTable::kMost,
          cat("max_tag_sets must be between 1 and ", TagTable::kMost, ", not ", o.max_tag_sets));
  require(o.full_timeout >= 0 && o.inline_limit >= 0, "a timeout must not be negative");
  if (o.max_concurrent == 0) o.max_concurrent = o.workers;
  return o;
}

/// The batchers whose models run on this thread, the innermost first, with their runs' slots.
struct RunScope {
  explicit RunScope(const Batcher* of, Slot* slot_ = nullptr) : batcher(of), slot(slot_), outer(innermost) {
    innermost = this;
  }
  ~RunScope() { innermost = outer; }
  RunScope(const RunScope&) = delete;
  RunScope& operator=(const RunScope&) = delete;

  const Batcher* const batcher;
  Slot* const slot;
  RunScope* const outer;
  static thread_local RunScope* innermost;
};
thread_local RunScope* RunScope::innermost = nullptr;

}  // namespace

/// Collects whom to notify, so that a batch costs each event loop one wake-up. Never allocates: with more loops than it
/// has room for, some are woken more than once.
class Batcher::Announcer {
 public:
  explicit Announcer(CompletionList* own = nullptr) : own_(own) {}
  ~Announcer() {
    for (size_t i = 0; i < count_; ++i) lists_[i]->notify();
  }
  Announcer(const Announcer&) = delete;
  Announcer& operator=(const Announcer&) = delete;

  void add(IntrusivePtr<CompletionList> list, Request& request) noexcept {
    list->push(RequestRef(&request));
    const auto end = lists_.begin() + static_cast<std::ptrdiff_t>(count_);
    if (list.get() == own_ || std::find(lists_.begin(), end, list) != end) return;
    if (count_ == lists_.size()) return list->notify();
    lists_[count_++] = std::move(list);
  }

 private:
  CompletionList* const own_;
  std::array<IntrusivePtr<CompletionList>, 8> lists_;
  size_t count_ = 0;
};

/// What one worker runs batches with: made before the thread, so that it starts with all it needs. Owned by the thread:
/// in the child of a fork, where that is gone, nobody touches it.
struct Batcher::Station {
  explicit Station(Batcher& batcher) : tools(batcher.make_tools()) {}
  BatchRun tools;
  Batch batch;
};

Batcher::Batcher(std::shared_ptr<Runner> runner, BatcherOptions options, std::shared_ptr<BufferPool> pool,
                 const Clock& clock)
    : runner_(std::move(runner)),
      pool_(std::move(pool)),
      options_(checked(std::move(options))),
      clock_(clock),
      steady_(dynamic_cast<const SteadyClock*>(&clock) != nullptr),
      fork_generation_(fork_generation()),
      intake_(runner_->inputs(), runner_->senses(), options_, pad_proof_, pad_cost_),
      watch_(options_.pace.target),
      recorder_(
          clock, options_.trace_size, [this] { return uint64_t{scheduler_.depth()}; }, &watch_),
      predictor_(*runner_),
      alike_(options_.coalesce || options_.result_cache ? std::make_unique<Alike>(runner_->inputs(), options_, *pool_)
                                                        : nullptr),
      clients_(options_.clients, options_.default_client, clock),
      tags_(options_.max_tag_sets),
      runs_(std::min(size_t(options_.max_concurrent), kWatchedRuns)),
      open_owner_(std::make_unique<OpenCount>()),
      open_(*open_owner_),
      scheduler_owner_(std::make_unique<Scheduler>(
          SchedulerOptions{{intake_.max_rows(), options_.max_delay, runner_->rows_mix(), options_.ageing},
                           options_.max_queue_size,
                           options_.max_concurrent,
                           options_.max_waiting,
                           pace(),
                           &Cores::process(),
                           options_.weight},
          clock, open_, predictor_)),
      scheduler_(*scheduler_owner_),
      workers_(std::make_unique<Workers>()) {
  for (const PortSpec& output : runner_->outputs()) {
    if (!output.is_list()) continue;
    throw std::invalid_argument(cat("output ", quote(output.name),
                                    " is a sequence or an optional, whose rows a Batcher cannot tell: call the model "
                                    "directly"));
  }
  if (!options_.outputs.empty() && options_.outputs.size() != runner_->outputs().size()) {
    throw std::invalid_argument(cat("output checks for ", counted(options_.outputs.size(), "output"),
                                    "; the model has ", runner_->outputs().size()));
  }
  try {
    start_workers();
  } catch (...) {
    scheduler_.stop();
    throw;  // the members' destructors join those that did start
  }
}

void Batcher::start_workers() {
  for (int i = 0; i < options_.workers; ++i) {
    const auto station = std::make_shared<Station>(*this);
    try {
      workers_->start(cat("ik-batch-", i), [this, station] { work(*station); });
      started_ = i + 1;
    } catch (const std::system_error& error) {
      if (i > 0) return;  // the system gives no more threads: those that there are do the work
      throw std::system_error(error.code(),
                              "no thread could be started for the batcher: the user or the container has as many as it "
                              "may have (RLIMIT_NPROC, `ulimit -u`, pids.max); raise that limit");
    }
  }
}

PaceOptions Batcher::pace() {
  if (runner_->rows_mix()) return {};  // each request is a batch of its own
  PaceOptions out = options_.pace;
  out.workers = options_.max_concurrent;
  out.watch = &watch_;
  return out;
}

Batcher::~Batcher() {
  if (foreign()) {
    // The threads do not exist here, and one of them may have been changing the queue: leave both as they are.
    (void)workers_.release();
    (void)alike_.release();
    (void)scheduler_owner_.release();
    (void)open_owner_.release();  // requests that nobody asked for again still refer to it
    return;
  }
  close(false);
}

std::string_view Batcher::state_name() const {
  if (foreign()) return "forked";
  const State state = state_.load();
  return state == State::kOpen ? "open" : state == State::kDraining ? "draining" : "closed";
}

bool Batcher::inside() const {
  for (const RunScope* scope = RunScope::innermost; scope; scope = scope->outer) {
    if (scope->batcher == this) return true;
  }
  return false;
}

void Batcher::give_cores_back() noexcept {
  for (const RunScope* scope = RunScope::innermost; scope; scope = scope->outer) {
    if (scope->slot) scope->slot->give_cores_back();
  }
}

void Batcher::check_outside() const {
  if (inside()) throw std::logic_error("a model must not wait for the batcher that runs it");
}

// Submitting

void Batcher::enqueue(std::span<const RequestRef> requests, bool wake) noexcept {
  if (foreign()) {  // the scheduler's lock may be held by a thread of the parent
    for (const RequestRef& request : requests) request->finish(Phase::kClosed);
    return;
  }
  scheduler_.enqueue(requests, wake);
  if (!steady_) {  // the clock may have moved since they were admitted, and nobody looks at it again
    for (const RequestRef& request : requests) expire(*request, clock_.now());
  }
  if (state_.load() == State::kClosed) reject_waiting();  // close() stored that first and emptied the queue second
}

RequestRef Batcher::submit(std::span<const StridedView> inputs, const SubmitOptions& options) {
  const Checked checked = check(inputs, options.tags);
  enter(checked, options, clock_.now());
  RequestRef request = admit(inputs, checked, options);
  if (!request->parked) enqueue({&request, 1});
  return request;
}

// Waiting

/// For who finds a request that is claimed: its end is decided, and shown when its claimer, which asks nobody and needs
/// no GIL in between, has written it down. Nanoseconds; on a busy machine until that thread has its turn again.
static void wait_for_publication(const Request& request) noexcept {
  bool interrupted = false;  // no reason to leave: what there is to wait for is no work
  while (request.phase() == Phase::kEnding) request.sleep(Phase::kEnding, kNever, &interrupted);
}

Waited Batcher::wait(Request& request, Nanos until) {
  if (!request.done()) check_outside();
  for (;;) {
    const Phase phase = request.phase();
    if (is_end(phase)) return Waited::kDone;
    if (foreign()) {
      // Whoever claimed it is not there to publish its end.
      if (!request.finish(Phase::kClosed) && !request.done()) request.publish(Phase::kClosed);
      continue;
    }
    if (phase == Phase::kEnding) {
      wait_for_publication(request);
      continue;
    }
    bool interrupted = false;
    request.sleep(phase, std::min(until, steady_ ? request.next_timeout() : kNever), &interrupted);
    if (request.done()) return Waited::kDone;
    if (interrupted) return Waited::kInterrupted;
    expire(request, clock_.now());
    if (until != kNever && SteadyClock::instance().now() >= until && request.phase() < Phase::kEnding) {
      return Waited::kTimedOut;
    }
  }
}

Waited Batcher::wait_for_room(Request& request) {
  check_outside();
  while (request.phase() == Phase::kWaiting) {
    bool interrupted = false;
    request.sleep(Phase::kWaiting, steady_ ? request.next_timeout() : kNever, &interrupted);
    if (interrupted) return Waited::kInterrupted;
    expire(request, clock_.now());
  }
  return Waited::kDone;
}

bool Batcher::cancel(Request& request) noexcept {
  if (foreign()) return request.finish(Phase::kClosed);
  Announcer announcer;
  if (!conclude(request, Phase::kCancelled, std::nullopt, announcer)) return false;
  scheduler_.remove(request);
  return true;
}

void Batcher::expire(Request& request, Nanos now) noexcept {
  if (now < request.next_timeout() || foreign()) return;
  Announcer announcer;
  const bool late = now >= request.deadline;
  if (conclude(request, late ? Phase::kExpired : Phase::kRejected, late ? WhyNot::kExpired : WhyNot::kNoRoom,
               announcer)) {
    scheduler_.remove(request);
  }
}

void Batcher::poke() noexcept {
  if (foreign()) return;
  if (!steady_) {
    sweep();
    scheduler_.await_handovers();
    runs_.for_each_request([now = clock_.now(), this](Request& request) {
      expire(request, now);
      if (now >= request.deadline) wait_for_publication(request);
    });
  }
  scheduler_.poke();
}

bool Batcher::conclude(Request& request, Phase end, std::optional<WhyNot> why, Announcer& announcer) noexcept {
  const std::optional<Phase> from = request.claim();
  if (!from) return false;
  RequestRef heir;
  if (*from != Phase::kRunning) {  // else its batch may be reading its inputs, and goes on for those that follow it
    if (request.by_content && alike_->coalescer) {
      if (end == Phase::kClosed) end_followers(request, announcer);
      heir = alike_->coalescer->pass_on(request);
      if (!heir) alike_->coalescer->ended(request);
    }
    request.inputs.release();
  }
  request.times.finished.store(clock_.now(), std::memory_order_relaxed);
  request.why_not = *from == Phase::kRunning && end == Phase::kExpired ? WhyNot::kRanLate : why;
  if (why == WhyNot::kNoRoom) request.retry_after = scheduler_.room_after(clock_.now(), request);
  settle(request, end, announcer);
  if (heir) {
    scheduler_.enqueue_heir(heir);
    if (state_.load() == State::kClosed) reject_waiting();  // as in enqueue()
  }
  return true;
}

/// A request that nobody else knows yet.
void Batcher::answer_at_once(Request& request, IntrusivePtr<BatchOutputs> outputs) noexcept {
  const Nanos now = clock_.now();
  for (std::atomic<Nanos>* at : {&request.times.dequeued, &request.times.started, &request.times.finished}) {
    at->store(now, std::memory_order_relaxed);
  }
  request.claim();
  request.outputs = std::move(outputs);
  Announcer nobody;
  settle(request, Phase::kResult, nobody);
}

/// Whoever waits for the answer of a request that is to have none.
void Batcher::end_followers(Request& leader, Announcer& announcer) noexcept {
  RequestList followers;
  alike_->coalescer->finish(leader, followers);
  while (const RequestRef follower = followers.pop()) conclude(*follower, Phase::kClosed, WhyNot::kClosed, announcer);
}

/// After the claim: counts the end, publishes it and tells whoever wants to know.
void Batcher::settle(Request& request, Phase end, Announcer& announcer) noexcept {
  const OpenCount::Hold open = std::move(request.open);  // a drain is over after all this
  const Nanos finished = request.times.finished.load(std::memory_order_relaxed);
  recorder_.ended(end, finished, request.status.code, request.tags);
  if (request.deadline != kNever && (end == Phase::kResult || end == Phase::kExpired)) {
    scheduler_.ended(end == Phase::kExpired);
  }
  if (request.why_not) recorder_.not_answered(*request.why_not);
  if (request.member && end == Phase::kResult) request.member->client->answered(request.rows);
  if (request.tags && end == Phase::kResult) {
    request.tags->answered(request.rows, finished - request.times.enqueued.load(std::memory_order_relaxed));
  }
  const TraceEntry entry = recorder_.entry(request, end);
  request.publish(end);
  recorder_.trace(entry, request);
  if (IntrusivePtr<CompletionList> list = request.take_list()) announcer.add(std::move(list), request);
}

void Batcher::sweep() noexcept {
  if (foreign()) return;
  // First those that follow others, so that no request whose time has passed takes the place of one that ends.
  if (alike_ && alike_->coalescer) {
    RequestList due;
    alike_->coalescer->sweep(clock_.now(), due);
    drop(due);
  }
  RequestList expired;
  const OpenCount::Hold handover = scheduler_.sweep(expired);
  drop(expired);
}

void Batcher::drop(RequestList& dropped) noexcept {
  if (dropped.empty()) return;
  Announcer announcer;
  // Unless it had ended: then it only lost its place.
  const Nanos now = clock_.now();
  while (const RequestRef request = dropped.pop()) {
    const bool expired = request->deadline <= now, no_room = !expired && request->phase() == Phase::kWaiting;
    const WhyNot why = expired ? WhyNot::kExpired : no_room ? WhyNot::kNoRoom : WhyNot::kLeftOut;
    if (!conclude(*request, no_room ? Phase::kRejected : Phase::kExpired, why, announcer) && !steady_) {
      wait_for_publication(*request);
    }
  }
}

// Running

void Batcher::work(Station& station) noexcept {
  RunScope scope(this);  // for as long as the thread lives: it must never wait for itself
  TimeSlice slice;
  RequestList dropped;
  while (scheduler_.next(station.batch, dropped)) {
    drop(dropped);
    if (station.batch.requests.empty()) {
      station.batch.handover = {};
      continue;
    }
    if (slice.may_ask() && steady_) fit_slice(slice, station.batch);
    run_batch(station.batch, station.tools, nullptr, true);
  }
}

/// So that a run that is over in a moment does not wait for others' that take long (decision 052).
void Batcher::fit_slice(TimeSlice& slice, const Batch& batch) noexcept {
  slices_.run(predictor_.typical(*batch.layout, batch.rows));
  const Nanos wanted = slices_.wanted();
  if (wanted > 0 && slice.fit(wanted)) slice_.store(slice.asked(), std::memory_order_relaxed);
}

void Batcher::run_batch(Batch& batch, BatchRun& tools, CompletionList* own, bool is_worker) noexcept {
  const Nanos now = clock_.now();
  for (const RequestRef& request : batch.requests) request->times.dequeued.store(now, std::memory_order_relaxed);
  {
    RunScope scope(this, &batch.slot);
    const ActiveRuns::Scope active(runs_, now, batch.requests);
    batch.handover = {};
    Announcer announcer(own);
    tools.run(batch, next_batch_.fetch_add(1, std::memory_order_relaxed),
              [&](Request& request, Phase end) { settle(request, end, announcer); });
  }
  batch.requests.clear();
  batch.layout.reset();
  batch.slot.release(is_worker);
}

void Batcher::run_inline(BatchRun& tools, Batch& batch, CompletionList& own) {
  Nanos budget = options_.inline_limit;
  const auto accept = [&](const LayoutRef& layout, int64_t rows) {
    const Nanos predicted = predictor_.predict(*layout, rows);
    if (predicted > budget) return false;
    budget -= predicted;
    return true;
  };
  for (;;) {
    RequestList dropped;
    const bool taken = scheduler_.take(batch, dropped, accept);
    drop(dropped);
    if (!taken) {
      batch.handover = {};
      break;
    }
    run_batch(batch, tools, &own, true);
  }
  scheduler_.kick();
}

bool Batcher::may_run_alone(const Checked& checked, Nanos deadline) const {
  if (!options_.caller_runs) return false;
  // A thread inside a model cannot look at the clock. Nobody knows how long a callable takes that hangs.
  if (deadline != kNever && (runner_->values_decide() || runner_->needs_gil())) return false;
  if (alike_) return false;                                   // others may be equal to it
  return !intake_.is_short(checked) && !checked.is_padded();  // to be filled up, maybe by others
}

Slot Batcher::begin_caller_run(const Checked& checked, Nanos deadline, Nanos now) {
  const bool may = may_run_alone(checked, deadline);
  if (may) check_outside();
  // One return: the slot is made where the caller has it.
  Slot slot = may ? scheduler_.begin_caller_run(*checked.layout, checked.rows, deadline, now) : Slot();
  if (state_.load() != State::kOpen) slot = Slot();  // whoever closes sees the slot, or this sees the close
  return slot;
}

Status Batcher::run_caller(Slot& slot, std::span<const TensorView> inputs, const Checked& checked, RowSink& sink,
                           Nanos enqueued, const SubmitOptions& options) {
  const uint64_t batch_id = next_batch_.fetch_add(1, std::memory_order_relaxed);
  recorder_.batch(DispatchReason::kCaller, checked.rows);
  sink.prepare(checked.rows);
  const Nanos started = clock_.now();
  Status status;
  uint64_t generation = 0;  // of the model that ran
  {
    RunScope scope(this, &slot);
    const ActiveRuns::Scope active(runs_, started);
    const HeldModel model = runner_->hold();
    generation = model.generation;
    status = model->run(inputs, sink);
  }
  const Nanos finished = clock_.now();
  const OpenCount::Hold open = slot.release();
  if (status.ok()) {
    predictor_.learn(*checked.layout, checked.rows, finished - started, finished, generation);
    status = sink.complete();
    recorder_.elements(checked.layout->padded_elements(checked.rows, checked.length), 0);
  }
  if (status.ok() && !options_.outputs.empty()) {
    status = check_rows(runner_->outputs(), options_.outputs, sink.views(), 0, checked.rows);
  }
  recorder_.latency(enqueued, started, finished);
  Phase end = status.ok() ? Phase::kResult : Phase::kError;
  if (finished > options.deadline) {
    end = Phase::kExpired;
    status = {ErrorCode::kDeadline, Reason::kNone, "the request's deadline passed before it had an answer", nullptr};
  }
  if (end == Phase::kExpired) recorder_.not_answered(WhyNot::kRanLate);
  recorder_.ended(end, finished, status.code, options.tags);
  if (options.client && end == Phase::kResult) options.client->answered(checked.rows);
  if (options.tags && end == Phase::kResult) options.tags->answered(checked.rows, finished - enqueued);
  TraceEntry r;
  r.id = options.id ? options.id : new_id();
  r.batch_id = batch_id;
  r.enqueued = enqueued;
  r.dequeued = r.started = started;
  r.finished = r.delivered = finished;  // the caller has it in its hands
  r.rows = r.batch_rows = static_cast<uint32_t>(checked.rows);
  r.priority = static_cast<int8_t>(options.priority);
  if (options.tags) r.tags = options.tags->id;
  recorder_.trace_call(r, end, uint8_t(DispatchReason::kCaller), options.name);
  return status;
}

void Batcher::teach(std::span<const StridedView> inputs) {
  const HeldModel model = runner_->hold();
  for (const Lesson& lesson : rehearse(*model, inputs)) {
    predictor_.learn(*lesson.layout, lesson.rows, lesson.took, clock_.now(), model.generation);
  }
}

std::vector<Lesson> Batcher::rehearse(Runner& model, std::span<const StridedView> inputs) {
  constexpr int kRuns = 4;
  constexpr Nanos kMoment = 50'000'000;
  std::vector<Lesson> out;
  // By another clock no time passes.
  if (foreign() || !steady_ || model.needs_gil() || model.values_decide()) return out;
  const Checked checked = intake_.check(inputs, runner_->generation());
  std::vector<TensorView> tensors;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape shape = checked.layout->shape(i, checked.rows);
    if (!(shape == inputs[i].shape)) return out;  // to be filled up, or without a batch axis
    tensors.push_back({inputs[i].dtype, shape, inputs[i].data});
  }
  PooledSink sink(runner_->outputs(), *pool_);
  const Nanos began = clock_.now();
  for (Nanos before = began, i = 0; i < kRuns && before - began < kMoment; ++i) {
    sink.prepare(checked.rows);
    if (!model.run(tensors, sink).ok()) return out;
    const Nanos now = clock_.now();
    out.push_back({checked.layout, checked.rows, now - before});
    sink.take();
    before = now;
  }
  return out;
}

void Batcher::follow(const Intake::Checks& checks, std::span<const Lesson> lessons) noexcept {
  if (foreign()) return;  // threads of the parent may hold its locks, and nothing runs any more
  const uint64_t generation = runner_->generation();
  intake_.follow(checks);
  pad_cost_.clear();
  predictor_.follow(generation,
                    [&] { intake_.for_each_layout([](const RowLayout& layout) { layout.cost.forget(); }); });
  intake_.for_each_layout([&](const RowLayout& layout) { scheduler_.forget_pace(layout); });
  for (const Lesson& lesson : lessons) {
    predictor_.learn(*lesson.layout, lesson.rows, lesson.took, clock_.now(), generation);
  }
  scheduler_.poke();  // who waits for company waits for what was worth it before
  if (alike_ && alike_->cache) alike_->cache->follow(generation);
}

// Ending

void Batcher::stop_admitting() {
  open_.watch();
  State open = State::kOpen;
  state_.compare_exchange_strong(open, State::kDraining);
}

void Batcher::begin_drain() {
  if (foreign()) return;
  stop_admitting();
  scheduler_.drain();
}

bool Batcher::drain(Nanos until) {
  if (foreign()) return true;
  check_outside();
  begin_drain();
  return open_.wait(until);
}

void Batcher::reject_waiting() noexcept {
  RequestList waiting;
  scheduler_.clear(waiting);
  Announcer announcer;
  while (const RequestRef request = waiting.pop()) conclude(*request, Phase::kClosed, WhyNot::kClosed, announcer);
}

void Batcher::refuse_all() {
  if (foreign()) return;
  open_.watch();
  state_.store(State::kClosed);
  reject_waiting();
}

void Batcher::end_running() {
  if (foreign()) return;
  Announcer announcer;
  runs_.for_each_request([&](Request& request) {
    conclude(request, Phase::kClosed, WhyNot::kClosed, announcer);
    if (request.by_content && alike_->coalescer) end_followers(request, announcer);
  });
}

bool Batcher::close(bool drain_first, Nanos until) {
  if (foreign()) return true;
  check_outside();
  if (drain_first && !drain(until)) return false;
  refuse_all();
  if (!drain(until)) return false;
  uint32_t nobody = 0;
  if (closing_.compare_exchange_strong(nobody, 1)) {
    scheduler_.stop();
    workers_->join();  // nothing runs any more, so at once
    if (alike_ && alike_->cache) alike_->cache->clear();
    closing_.store(2);
    futex_wake_all(closing_);
  }
  while (closing_.load() != 2) futex_wait(closing_, 1);
  return true;
}

Nanos Batcher::longest_run(Nanos now) const {
  const Nanos oldest = runs_.oldest();
  return oldest == kNever ? 0 : std::max<Nanos>(0, now - oldest);
}

BatcherSeries Batcher::series() const { return foreign() ? BatcherSeries{} : recorder_.series(clock_.now()); }

BatcherStats Batcher::stats() const {
  BatcherStats out;
  if (foreign()) return out;
  const QueueFigures figures = scheduler_.figures();
  out.queue_depth = figures.depth;
  out.in_flight = static_cast<size_t>(figures.running);
  out.oldest_wait = figures.oldest_wait;
  out.pace = figures.pace;
  out.cores = scheduler_.core_figures();
  out.weight = options_.weight;
  out.workers = started_;
  out.workers_missing = options_.workers - started_;
  out.slice = slice_.load(std::memory_order_relaxed);
  const Nanos now = clock_.now();
  out.longest_run = longest_run(now);
  recorder_.fill(out, max_rows(), now);
  if (padding()) out.padding_refusal = pad_proof_.refusal(runner_->generation());
  if (padding()) out.padding_costs = pad_cost_.figures();
  if (alike_) out.coalesced = alike_->coalesced.value();
  if (alike_ && alike_->cache) out.cache = alike_->cache->figures();
  return out;
}

}  // namespace inferkit
