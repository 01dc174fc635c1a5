// The dynamic batcher: requests in, batches out to a Runner, every request to its own end.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "batching/active_runs.h"
#include "batching/alike.h"
#include "batching/batch_run.h"
#include "batching/client.h"
#include "batching/intake.h"
#include "batching/options.h"
#include "batching/recorder.h"
#include "batching/refusal.h"
#include "batching/scheduler.h"
#include "batching/slice_choice.h"
#include "batching/worker.h"
#include "platform/fork.h"

namespace inferkit {

/// What a run of inputs of nobody's took.
struct Lesson {
  LayoutRef layout;
  int64_t rows = 0;
  Nanos took = 0;
};

enum class Waited : uint8_t { kDone, kTimedOut, kInterrupted };

/// Thread-safe, all of it. No call takes Python's GIL; those that may sleep or run a model say so, and the caller gives
/// the GIL up first. A child of fork() finds every batcher of its parent closed.
class Batcher {
 public:
  /// Throws std::invalid_argument where the options or the model's ports cannot be served. `clock` outlives this.
  Batcher(std::shared_ptr<Runner> runner, BatcherOptions options, std::shared_ptr<BufferPool> pool,
          const Clock& clock = SteadyClock::instance());
  /// Closes without draining. Sleeps until the batches that run have finished.
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // Submitting
  /// The client of that name, for SubmitOptions; null in a child of fork(), where all are refused. Throws
  /// Error(kQueueFull) where there are too many, std::invalid_argument where it can be no name.
  ClientRef client(std::string_view name, TagSet* tags = nullptr);
  /// The set of tags that these are, for SubmitOptions; null where there are none, and in a child of fork().
  TagSet* tag_set(const TagKey& tags) { return tags.empty() || foreign() ? nullptr : &tags_.find(tags); }
  /// Before a request whose inputs check() took goes any further: counts it for its client, and throws
  /// Error(kQueueFull) where that has used up its rate.
  void enter(const Checked& checked, const SubmitOptions& options, Nanos now) {
    if (options.client) enter_client(checked, options, now);
  }
  /// Everything but the values. Throws Error(kValidation), Error(kClosed).
  Checked check(std::span<const StridedView> inputs, TagSet* tags = nullptr);
  /// For a request whose inputs are so wrong that there is nothing to check(): counts it. Throws Error(kClosed).
  void refuse_invalid(TagSet* tags = nullptr);
  /// Finds a place in the queue and copies the input: pass the request to enqueue(). Where the queue is full and the
  /// options say to wait, it comes back `parked` and goes to the queue by itself. Throws
  /// Error(kQueueFull, kValidation, kPoolExhausted, kClosed), and Error(kDeadline) where its deadline has passed or, by
  /// what runs have taken, cannot be kept; such a request counts as expired.
  RequestRef admit(std::span<const StridedView> inputs, const Checked& checked, const SubmitOptions& options);
  /// The number of a request that its caller gives none.
  uint64_t new_id() { return next_id_.fetch_add(1, std::memory_order_relaxed); }
  /// For who answers with requests alone: one that has ended with what check(), refuse_invalid() or admit() threw,
  /// which have counted it.
  RequestRef refused(const Error& why, const SubmitOptions& options) const;
  /// Cancels an admitted request that will not be queued after all, and gives its place back. One that is dropped gives
  /// both back as well, but leaves whoever waits for its end without one.
  void withdraw(Request& request) noexcept { cancel(request); }
  /// Queues admitted requests together. With `wake` false no worker is woken: call kick() or run_inline().
  void enqueue(std::span<const RequestRef> requests, bool wake = true) noexcept;
  void kick() { scheduler_.kick(); }
  /// All of check(), enter(), admit() and enqueue().
  RequestRef submit(std::span<const StridedView> inputs, const SubmitOptions& options = {});

  // Waiting
  /// Sleeps until the request ends, its own deadline included, or until `until` (SteadyClock), or a signal.
  Waited wait(Request& request, Nanos until = kNever);
  /// Sleeps until the request has a place in the queue or has ended. kInterrupted on a signal.
  Waited wait_for_room(Request& request);
  /// True where this call ended it; false also where its end was decided a moment ago and is being written down: wait()
  /// then waits for that, whatever its `until`. What runs already runs on, for nobody.
  bool cancel(Request& request) noexcept;
  /// The caller has taken the answer, or the error, of a request that has ended.
  void delivered(Request& request) { recorder_.delivered(request, clock_.now()); }
  /// Ends the request if its time has passed at `now`.
  void expire(Request& request, Nanos now) noexcept;

  // Running on the caller's thread
  /// A slot for run_caller(), if the batcher is idle, the policy would let the request go at once, and its run is
  /// known to be over well before `deadline`: a thread that runs a model cannot look at the clock.
  Slot begin_caller_run(const Checked& checked, Nanos deadline, Nanos now);
  Slot begin_caller_run(const Checked& checked, Nanos deadline = kNever) {
    return begin_caller_run(checked, deadline, clock_.now());
  }
  /// The values of a request that is about to be run in place. Throws Error(kValidation).
  void scan(std::span<const StridedView> inputs, TagSet* tags = nullptr);
  /// The same for one that cannot be run where it lies: a pooled copy, laid out as Request::inputs. Counts where there
  /// are no values to take, or no memory for them.
  Buffer copy(std::span<const StridedView> inputs, const Checked& checked, TagSet* tags = nullptr);
  /// Runs, checks, records, and lets go of the slot. `inputs` were checked. Runs the model.
  Status run_caller(Slot& slot, std::span<const TensorView> inputs, const Checked& checked, RowSink& sink,
                    Nanos enqueued, const SubmitOptions& options);
  /// For the thread of an event loop: runs what is queued as long as it is predicted to take less than
  /// inline_limit in all, then wakes a worker for the rest. Ends whose list is `own` are pushed there without a
  /// notification. Runs the model. Not to be called by two threads with one `tools`.
  void run_inline(BatchRun& tools, Batch& batch, CompletionList& own);
  /// Runs inputs of nobody's a few times, but no longer than a moment, to learn what that takes. Does nothing where a
  /// run would call Python, or its values decide how long it takes. Throws Error(kValidation). Runs the model.
  void teach(std::span<const StridedView> inputs);
  /// The same on a model that is to take the runner's place, to be learnt once it has.
  std::vector<Lesson> rehearse(Runner& model, std::span<const StridedView> inputs);
  Nanos predict(const RowLayout& layout, int64_t rows) const { return predictor_.predict(layout, rows); }

  // Ending
  /// Admits nothing more.
  void stop_admitting();
  /// The same, and what was admitted is not kept waiting for company.
  void begin_drain();
  /// begin_drain(), then sleeps until every request has ended and nothing runs; false where `until` comes first.
  bool drain(Nanos until = kNever);
  /// Ends those of the requests that wait whose time has passed, with their buffers. Workers and whoever waits for an
  /// answer see to that by themselves; for where no worker is free and nobody waits.
  void sweep() noexcept;
  /// Admits nothing more, and ends what has not run with ClosedError. Does not sleep.
  void refuse_all();
  /// Ends the requests of the batches that run, with ClosedError: they go on for nobody. For callers that will not wait
  /// for them, after refuse_all().
  void end_running();
  /// Admits nothing more; what has not run ends with ClosedError, or runs first where `drain`. Sleeps until all
  /// workers have gone; false where `until` (SteadyClock) comes first, and then it may be called again. Any number of
  /// threads may call it; each returns when it is done.
  bool close(bool drain, Nanos until = kNever);
  /// Whether a batch or a caller's run is under way, or a request has not ended: close() would wait for it.
  bool busy() const { return !open_.quiet(); }
  bool closed() const { return state_.load() != State::kOpen || foreign(); }
  /// "open", "draining", "closed", or "forked" in a child of the process that made it.
  std::string_view state_name() const;

  /// True on a thread that this batcher runs a model on: there, what may sleep throws std::logic_error, as it would
  /// wait for itself, and the batcher must not be destroyed.
  bool inside() const;

  BatcherStats stats() const;
  std::vector<ClientFigures> clients() const { return foreign() ? std::vector<ClientFigures>() : clients_.figures(); }
  std::vector<TagFigures> tags() const { return foreign() ? std::vector<TagFigures>() : tags_.figures(); }
  /// What happened in each of the last seconds.
  BatcherSeries series() const;
  /// What has ended last; switched on and off at any time.
  TraceRing& ring() { return recorder_.ring(); }
  /// For clocks that do not run by themselves: ends what is due, and has the workers look at the clock again.
  void poke() noexcept;
  /// Whether its clock is the one that threads sleep by.
  bool steady() const { return steady_; }
  /// How long the oldest of the batches that run has run; 0 where none does.
  Nanos longest_run() const { return foreign() ? 0 : longest_run(clock_.now()); }

  /// Of a model that is to take the runner's place, what its inputs are checked for; then follow() once it has. What
  /// runs of the one before took says nothing of its own. One thread at a time.
  const Intake::Checks& checks_for(const Runner& next) { return intake_.checks_for(next.senses()); }
  void follow(const Intake::Checks& checks, std::span<const Lesson> lessons = {}) noexcept;

  const BatcherOptions& options() const { return options_; }
  int64_t max_rows() const { return intake_.max_rows(); }
  Runner& runner() const { return *runner_; }
  BufferPool& pool() const { return *pool_; }
  const Clock& clock() const { return clock_; }
  BatchRun make_tools() {
    return BatchRun(*runner_, *pool_, options_, clock_, recorder_, predictor_, proof_, pad_proof_, pad_cost_,
                    alike_.get());
  }
  /// Null where requests are not padded.
  const Padding* padding() const { return intake_.padding().get(); }

 private:
  /// As many as the system gives of those that are asked for, and one at least; else std::system_error.
  void start_workers();
  PaceOptions pace();

  enum class State : uint32_t { kOpen, kDraining, kClosed };

  class Announcer;
  struct Station;
  void work(Station& station) noexcept;
  void fit_slice(TimeSlice& slice, const Batch& batch) noexcept;
  void run_batch(Batch& batch, BatchRun& tools, CompletionList* own, bool is_worker) noexcept;
  bool conclude(Request& request, Phase end, std::optional<WhyNot> why, Announcer& announcer) noexcept;
  void settle(Request& request, Phase end, Announcer& announcer) noexcept;
  void drop(RequestList& dropped) noexcept;
  void reject_waiting() noexcept;
  void refuse_if_closed(TagSet* tags);
  void enter_client(const Checked& checked, const SubmitOptions& options, Nanos now);
  RequestRef admit_one(std::span<const StridedView> inputs, const Checked& checked, const SubmitOptions& options);
  RequestRef new_request(const Checked& checked, const SubmitOptions& options, const ClientRef& client,
                         const StrandRef& strand, Nanos now);
  bool find_alike(const RequestRef& request, std::span<const StridedView> inputs, const Checked& checked,
                  Buffer& copied);
  void answer_at_once(Request& request, IntrusivePtr<BatchOutputs> outputs) noexcept;
  void end_followers(Request& leader, Announcer& announcer) noexcept;
  [[noreturn]] void refuse_full(const Request& request, const SubmitOptions& options);
  void refuse_if_late(const Checked& checked, const SubmitOptions& options, Nanos now, const Flow* flow);
  void trace_refusal(Phase end, WhyNot why, uint64_t id, const SubmitOptions& options, int64_t rows, Nanos now);
  /// On a thread that runs models for batchers: what it does next may wait for a run of another one, and that for the
  /// cores that these hold.
  static void give_cores_back() noexcept;
  bool foreign() const { return fork_generation_ != fork_generation(); }
  void check_outside() const;
  Nanos longest_run(Nanos now) const;
  /// Whether a run may be of this request alone, on its caller's thread.
  bool may_run_alone(const Checked& checked, Nanos deadline) const;

  const std::shared_ptr<Runner> runner_;
  const std::shared_ptr<BufferPool> pool_;
  const BatcherOptions options_;
  const Clock& clock_;
  const bool steady_;
  const uint32_t fork_generation_;
  PadProof pad_proof_;
  PadCost pad_cost_;
  Intake intake_;
  TargetWatch watch_;
  Recorder recorder_;
  Predictor predictor_;
  RowProof proof_;
  std::unique_ptr<Alike> alike_;  // null where equal requests are each on their own
  ClientTable clients_;
  TagTable tags_;
  ActiveRuns runs_;
  SliceChoice slices_;
  std::atomic<Nanos> slice_{0};  // what a worker has asked the kernel for last; a figure
  std::atomic<uint64_t> next_id_{1}, next_batch_{1};

  std::atomic<State> state_{State::kOpen};
  std::atomic<uint32_t> closing_{0};  // 0, 1 while one thread closes, 2 when it has

  // By pointer, so that a child of fork(), which has neither the threads nor a whole queue, can leave them alone.
  std::unique_ptr<OpenCount> open_owner_;
  OpenCount& open_;  // sequentially consistent with state_
  std::unique_ptr<Scheduler> scheduler_owner_;
  Scheduler& scheduler_;
  std::unique_ptr<Workers> workers_;
  int started_ = 0;  // of them; the constructor's to write
};

}  // namespace inferkit
