#include "batching/batcher.h"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "base/text.h"
#include "platform/fork.h"
#include "platform/futex.h"

namespace inferkit {
namespace {

constexpr size_t kWatchedRuns = 1024;  // more at once is more than the workers there may be

BatcherOptions checked(BatcherOptions o) {
  const auto require = [](bool holds, const std::string& message) {
    if (!holds) throw std::invalid_argument(message);
  };
  require(o.max_batch_size >= 1, cat("max_batch_size must be at least 1, not ", o.max_batch_size));
  require(o.max_delay >= 0, "max_delay must not be negative");
  require(o.ageing >= 0, "ageing must not be negative");
  require(o.workers >= 1 && o.workers <= 1024, cat("workers must be between 1 and 1024, not ", o.workers));
  require(o.max_concurrent >= 0, cat("max_concurrent must not be negative: ", o.max_concurrent));
  require(o.trace_size <= size_t{1} << 24, cat("trace_size must be at most ", size_t{1} << 24, ", not ", o.trace_size));
  require(o.full_timeout >= 0 && o.inline_limit >= 0, "a timeout must not be negative");
  if (o.max_concurrent == 0) o.max_concurrent = o.workers;
  return o;
}

/// The batchers whose models run on this thread, the innermost first.
struct RunScope {
  explicit RunScope(const Batcher* of) : batcher(of), outer(innermost) { innermost = this; }
  ~RunScope() { innermost = outer; }
  RunScope(const RunScope&) = delete;
  RunScope& operator=(const RunScope&) = delete;

  const Batcher* const batcher;
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
      intake_(runner_->inputs(), runner_->senses(), options_),
      recorder_(clock, options_.trace_size, [this] { return uint64_t{scheduler_.depth()}; }),
      predictor_(*runner_),
      clients_(options_.clients, options_.default_client, clock),
      runs_(std::min(size_t(options_.max_concurrent), kWatchedRuns)),
      open_owner_(std::make_unique<OpenCount>()),
      open_(*open_owner_),
      scheduler_owner_(std::make_unique<Scheduler>(
          SchedulerOptions{{intake_.max_rows(), options_.max_delay, runner_->rows_mix(), options_.ageing},
                           options_.max_queue_size,
                           options_.max_concurrent,
                           options_.max_waiting},
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
    throw std::invalid_argument(
        cat("output checks for ", options_.outputs.size(), " outputs; the model has ", runner_->outputs().size()));
  }
  try {
    for (int i = 0; i < options_.workers; ++i) {
      workers_->start(cat("ik-batch-", i), [this, station = std::make_shared<Station>(*this)] { work(*station); });
    }
  } catch (...) {
    scheduler_.stop();
    throw;  // the members' destructors join those that did start
  }
}

Batcher::~Batcher() {
  if (foreign()) {
    // The threads do not exist here, and one of them may have been changing the queue: leave both as they are.
    (void)workers_.release();
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

bool Batcher::foreign() const { return fork_generation_ != fork_generation(); }

bool Batcher::inside() const {
  for (const RunScope* scope = RunScope::innermost; scope; scope = scope->outer) {
    if (scope->batcher == this) return true;
  }
  return false;
}

void Batcher::check_outside() const {
  if (inside()) throw std::logic_error("a model must not wait for the batcher that runs it");
}

// Submitting

void Batcher::refuse_if_closed() {
  if (foreign()) {
    throw Error(ErrorCode::kClosed,
                "this batcher belongs to the parent process: make one in each process after fork()");
  }
  if (state_.load() == State::kOpen) return;
  recorder_.rejected();
  throw Error(ErrorCode::kClosed, "the batcher is draining or closed and takes no more requests");
}

void Batcher::refuse_invalid() {
  refuse_if_closed();
  recorder_.invalid();
}

Checked Batcher::check(std::span<const StridedView> inputs) {
  refuse_if_closed();
  try {
    Checked checked = intake_.check(inputs);
    if (intake_.is_short(checked) && proof_.rows_mix(runner_->generation()))
      throw Error(proof_.refusal(checked.rows, max_rows()));
    return checked;
  } catch (const Error&) {
    recorder_.invalid();
    throw;
  }
}

void Batcher::scan(std::span<const StridedView> inputs) {
  try {
    intake_.scan(inputs);
  } catch (const Error&) {
    recorder_.invalid();
    throw;
  }
}

Buffer Batcher::copy(std::span<const StridedView> inputs, const Checked& checked) {
  try {
    return intake_.copy(inputs, checked, *pool_);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kValidation) recorder_.invalid();
    throw;
  }
}

/// A refusal has no Request, but a record.
void Batcher::trace_refusal(Phase end, uint64_t id, const std::string& name, int priority, int64_t rows, Nanos now) {
  TraceEntry refused;
  refused.id = id;
  refused.priority = static_cast<int8_t>(priority);
  refused.rows = static_cast<uint32_t>(rows);
  refused.enqueued = refused.finished = now;
  recorder_.trace_call(refused, end, DispatchReason::kReady, name);
}

ClientRef Batcher::client(std::string_view name) {
  if (foreign()) return nullptr;  // the table's lock may be held by a thread of the parent
  try {
    return clients_.find(name);
  } catch (const Error&) {
    recorder_.rejected();
    throw;
  }
}

void Batcher::enter_client(const Checked& checked, const SubmitOptions& options, Nanos now) {
  Client& client = *options.client;
  const Nanos wait = client.arrives(now);
  if (wait == 0) return;
  recorder_.rejected();
  trace_refusal(Phase::kRejected, options.id ? options.id : new_id(), options.name, options.priority, checked.rows,
                now);
  throw Refusal(ErrorCode::kQueueFull,
                cat("client ", quote(client.name), " has used up its rate of ", client.options.rate,
                    " requests a second (burst=", client.options.burst, "): try again in ", double(wait) * 1e-9, " s"),
                wait);
}

void Batcher::refuse_full(const Request& request) {
  recorder_.rejected();
  trace_refusal(Phase::kRejected, request.id, request.name, request.priority, request.rows,
                request.times.enqueued.load(std::memory_order_relaxed));
  if (request.member && !options_.wait_when_full && scheduler_.depth() < options_.max_queue_size) {
    const Client& client = *request.member->client;
    throw Refusal(
        ErrorCode::kQueueFull,
        cat(client.name.empty() ? std::string("the requests without a client") : cat("client ", quote(client.name)),
            " may have no more places in the queue than are free, and has ", client.held(),
            " (max_queue_size=", options_.max_queue_size, "): try again later, or raise max_queue_size of the Batcher"),
        scheduler_.room_after(clock_.now()));
  }
  const std::string full = cat("the queue is full (max_queue_size=", options_.max_queue_size, ")");
  throw Refusal(ErrorCode::kQueueFull,
                options_.wait_when_full
                    ? cat(full, " and ", options_.max_waiting, " requests wait for room already (max_waiting): wait ",
                          "for answers before you submit more, or raise max_waiting of the Batcher")
                    : cat(full, ": try again later, or raise max_queue_size of the Batcher"),
                scheduler_.room_after(clock_.now()));
}

/// Refused at once, it is told so while there is time to do something else, and nobody computes what comes too late.
void Batcher::refuse_if_late(const Checked& checked, const SubmitOptions& options, Nanos now, const Flow* flow) {
  const bool passed = options.deadline <= now;
  Outlook outlook;
  if (!passed) {
    outlook = scheduler_.outlook(*checked.layout, checked.rows, options.priority, options.deadline, now, flow);
    if (!outlook.known || (outlook.end <= options.deadline - outlook.spare && outlook.others >= 0)) return;
  }
  recorder_.ended(Phase::kExpired, now);
  trace_refusal(Phase::kExpired, options.id ? options.id : new_id(), options.name, options.priority, checked.rows, now);
  if (passed) throw Error(ErrorCode::kDeadline, "the request's deadline had passed when it was submitted");
  const Nanos has = options.deadline - now;
  // Nobody is served sooner for having waited where the run alone takes longer.
  const bool too_short = predictor_.forecast(*checked.layout, checked.rows).likely > has;
  const auto milliseconds = [](Nanos n) { return cat(double(n) * 1e-6, " ms"); };
  const std::string why =
      outlook.end > options.deadline - outlook.spare
          ? cat("it has ", milliseconds(has), " left, and the requests before it and its own run take about ",
                milliseconds(outlook.end - now),
                outlook.end > options.deadline
                    ? ""
                    : cat(", and ", milliseconds(outlook.spare), " of its time are kept in reserve"))
          : cat("it would go before requests that have been admitted, and they would be late by about ",
                milliseconds(-outlook.others));
  const Nanos missing = std::max(outlook.end + outlook.spare - options.deadline, -outlook.others);
  throw Refusal(ErrorCode::kDeadline, cat("the request cannot be answered by its deadline: ", why),
                too_short ? kNever : missing);
}

RequestRef Batcher::admit(std::span<const StridedView> inputs, const Checked& checked, const SubmitOptions& options) {
  try {
    return admit_one(inputs, checked, options);
  } catch (...) {
    if (options.client) options.client->refused();
    throw;
  }
}

RequestRef Batcher::admit_one(std::span<const StridedView> inputs, const Checked& checked,
                              const SubmitOptions& options) {
  if (options.priority < -kMaxPriority || options.priority > kMaxPriority) {
    throw std::invalid_argument(
        cat("priority must be between -", kMaxPriority, " and ", kMaxPriority, ", not ", options.priority));
  }
  const Nanos now = clock_.now();
  const ClientRef client = options.client ? options.client : clients_.anonymous();
  const StrandRef strand = client ? client->strand(*checked.layout, options.priority) : StrandRef();
  if (options.deadline != kNever) refuse_if_late(checked, options, now, strand ? &strand->flow : nullptr);
  RequestRef request(new Request(checked.layout, checked.rows, checked.single_row, options));
  if (client) request->member = std::make_unique<Membership>(*request, client, strand);
  if (!request->id) request->id = new_id();
  request->times.enqueued.store(now, std::memory_order_relaxed);

  recorder_.arrives(now);
  request->open = OpenCount::Hold(open_);
  refuse_if_closed();  // again: whoever closes sees what is open, or this sees the close
  if (client && !options_.wait_when_full && !scheduler_.spares(client->held())) {
    sweep();
    if (!scheduler_.spares(client->held())) refuse_full(*request);
  }
  request->place = scheduler_.try_reserve();
  if (!request->place) {
    sweep();
    request->place = scheduler_.try_reserve();
    if (!request->place && !(options_.wait_when_full && scheduler_.may_park())) refuse_full(*request);
  }
  try {
    request->inputs = intake_.copy(inputs, checked, *pool_);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kValidation) recorder_.invalid();
    if (error.code() == ErrorCode::kPoolExhausted) recorder_.rejected();
    throw;
  }
  if (request->place) {
    if (client) request->member->hold();
    request->advance(Phase::kWaiting, Phase::kQueued);
  } else {
    if (options_.full_timeout < kNever - now) request->admit_by = now + options_.full_timeout;
    request->parked = true;
    if (!scheduler_.park(request)) refuse_full(*request);
    if (state_.load() == State::kClosed) reject_waiting();
  }
  return request;
}

RequestRef Batcher::refused(const Error& why, const SubmitOptions& options) const {
  RequestRef request(new Request(nullptr, 0, false, options));
  const Nanos now = clock_.now();
  request->times.enqueued.store(now, std::memory_order_relaxed);
  request->times.finished.store(now, std::memory_order_relaxed);
  const auto* refusal = dynamic_cast<const Refusal*>(&why);
  request->refuse(why.status(), refusal ? refusal->retry_after() : kNever);
  return request;
}

void Batcher::enqueue(std::span<const RequestRef> requests, bool wake) noexcept {
  if (foreign()) {  // the scheduler's lock may be held by a thread of the parent
    for (const RequestRef& request : requests) request->finish(Phase::kClosed);
    return;
  }
  scheduler_.enqueue(requests, wake);
  if (state_.load() == State::kClosed) reject_waiting();  // close() stored that first and emptied the queue second
}

RequestRef Batcher::submit(std::span<const StridedView> inputs, const SubmitOptions& options) {
  const Checked checked = check(inputs);
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
  if (!conclude(request, Phase::kCancelled, announcer)) return false;
  scheduler_.remove(request);
  return true;
}

void Batcher::expire(Request& request, Nanos now) noexcept {
  if (now < request.next_timeout() || foreign()) return;
  Announcer announcer;
  if (conclude(request, now >= request.deadline ? Phase::kExpired : Phase::kRejected, announcer)) {
    scheduler_.remove(request);
  }
}

void Batcher::poke() noexcept {
  if (foreign()) return;
  if (!steady_) {
    sweep();
    runs_.for_each_request([now = clock_.now(), this](Request& request) { expire(request, now); });
  }
  scheduler_.poke();
}

bool Batcher::conclude(Request& request, Phase end, Announcer& announcer) noexcept {
  const std::optional<Phase> from = request.claim();
  if (!from) return false;
  if (*from != Phase::kRunning) request.inputs.release();  // else its batch may be reading them
  request.times.finished.store(clock_.now(), std::memory_order_relaxed);
  settle(request, end, announcer);
  return true;
}

/// After the claim: counts the end, publishes it and tells whoever wants to know.
void Batcher::settle(Request& request, Phase end, Announcer& announcer) noexcept {
  const OpenCount::Hold open = std::move(request.open);  // a drain is over after all this
  recorder_.ended(end, request.times.finished.load(std::memory_order_relaxed), request.status.code);
  if (request.member && end == Phase::kResult) request.member->client->answered(request.rows);
  const TraceEntry entry = recorder_.entry(request, end);
  request.publish(end);
  recorder_.trace(entry, request);
  if (IntrusivePtr<CompletionList> list = request.take_list()) announcer.add(std::move(list), request);
}

void Batcher::sweep() noexcept {
  RequestList expired;
  scheduler_.sweep(expired);
  drop(expired);
}

void Batcher::drop(RequestList& dropped) noexcept {
  if (dropped.empty()) return;
  Announcer announcer;
  // Unless it had ended: then it only lost its place.
  while (const RequestRef request = dropped.pop()) conclude(*request, Phase::kExpired, announcer);
}

// Running

void Batcher::work(Station& station) noexcept {
  RunScope scope(this);  // for as long as the thread lives: it must never wait for itself
  RequestList dropped;
  while (scheduler_.next(station.batch, dropped)) {
    drop(dropped);
    if (!station.batch.requests.empty()) run_batch(station.batch, station.tools, nullptr, true);
  }
}

void Batcher::run_batch(Batch& batch, BatchRun& tools, CompletionList* own, bool is_worker) noexcept {
  const Nanos now = clock_.now();
  for (const RequestRef& request : batch.requests) request->times.dequeued.store(now, std::memory_order_relaxed);
  {
    RunScope scope(this);
    const ActiveRuns::Scope active(runs_, now, batch.requests);
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
    if (!taken) break;
    run_batch(batch, tools, &own, true);
  }
  scheduler_.kick();
}

Slot Batcher::begin_caller_run(const Checked& checked, Nanos deadline, Nanos now) {
  if (!options_.caller_runs || (deadline != kNever && runner_->values_decide())) return {};
  if (intake_.is_short(checked)) return {};  // to be filled up, maybe by others
  check_outside();
  Slot slot = scheduler_.begin_caller_run(*checked.layout, checked.rows, deadline, now);
  if (state_.load() != State::kOpen) return {};  // whoever closes sees the slot, or this sees the close
  return slot;
}

Status Batcher::run_caller(Slot slot, std::span<const TensorView> inputs, const Checked& checked, RowSink& sink,
                           Nanos enqueued, const SubmitOptions& options) {
  const uint64_t batch_id = next_batch_.fetch_add(1, std::memory_order_relaxed);
  recorder_.batch(DispatchReason::kCaller, checked.rows);
  sink.prepare(checked.rows);
  const Nanos started = clock_.now();
  Status status;
  {
    RunScope scope(this);
    const ActiveRuns::Scope active(runs_, started);
    status = runner_->run(inputs, sink);
  }
  const Nanos finished = clock_.now();
  const OpenCount::Hold open = slot.release();
  if (status.ok()) {
    predictor_.learn(*checked.layout, checked.rows, finished - started, finished);
    status = sink.complete();
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
  recorder_.ended(end, finished, status.code);
  if (options.client && end == Phase::kResult) options.client->answered(checked.rows);
  TraceEntry r;
  r.id = options.id ? options.id : new_id();
  r.batch_id = batch_id;
  r.enqueued = enqueued;
  r.dequeued = r.started = started;
  r.finished = r.delivered = finished;  // the caller has it in its hands
  r.rows = r.batch_rows = static_cast<uint32_t>(checked.rows);
  r.priority = static_cast<int8_t>(options.priority);
  recorder_.trace_call(r, end, DispatchReason::kCaller, options.name);
  return status;
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
  while (const RequestRef request = waiting.pop()) conclude(*request, Phase::kClosed, announcer);
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
  runs_.for_each_request([&](Request& request) { conclude(request, Phase::kClosed, announcer); });
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
    closing_.store(2);
    futex_wake_all(closing_);
  }
  while (closing_.load() != 2) futex_wait(closing_, 1);
  return true;
}

BatcherSeries Batcher::series() const { return foreign() ? BatcherSeries{} : recorder_.series(clock_.now()); }

BatcherStats Batcher::stats() const {
  BatcherStats out;
  if (foreign()) return out;
  const QueueFigures figures = scheduler_.figures();
  out.queue_depth = figures.depth;
  out.in_flight = static_cast<size_t>(figures.running);
  out.oldest_wait = figures.oldest_wait;
  const Nanos now = clock_.now(), oldest = runs_.oldest();
  if (oldest != kNever) out.longest_run = std::max<Nanos>(0, now - oldest);
  recorder_.fill(out, max_rows(), now);
  return out;
}

}  // namespace inferkit
