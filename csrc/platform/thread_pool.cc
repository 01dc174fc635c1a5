#include "platform/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

#include "platform/float_environment.h"
#include "platform/fork.h"
#include "platform/futex.h"
#include "platform/mapped_region.h"
#include "platform/pause.h"
#include "platform/rehearsal.h"
#include "platform/run_control.h"
#include "platform/threads.h"

namespace inferkit {
namespace {

/// How long an idle thread watches for work before it sleeps: a few times what waking it costs. And how much longer
/// within a stretch, where work is likely to come; then it lets others run that want to.
constexpr auto kSpin = std::chrono::microseconds(40), kSpinInStretch = std::chrono::microseconds(200);

/// How often a caller that waits for its helpers looks whether the work is to go on.
constexpr Nanos kLook = 50'000'000;

/// True in a thread that runs a body, where a further parallel_for must run inline.
thread_local bool inside_body = false;

/// Waits for `ready`, at most so long; false where the time ran out.
template <class Ready>
bool spin_until(Ready ready, std::chrono::microseconds most = kSpin, bool yields = false) {
  const auto end = std::chrono::steady_clock::now() + most;
  while (true) {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      pause_core();
    }
    if (std::chrono::steady_clock::now() >= end) return ready();
    if (yields) std::this_thread::yield();
  }
}

}  // namespace

// One job at a time. The gate says how many helpers may still join it. A helper joins by taking one from the gate, and
// says that it left by counting `left` up; the caller closes the gate, and what is missing from it tells how many
// joined. So nobody touches a job that has ended, however late it woke.
//
// The indices of a job are cut into as many shares as there may be threads. Each thread takes from its own first, so
// that no line of memory is written by all of them, and from the others' when that is used up.
struct ThreadPool::State {
  using Body = FunctionRef<void(int64_t, int64_t)>;
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};  // the first index that nobody has claimed; orders nothing
    int64_t end = 0;
  };

  explicit State(int size) : shares(static_cast<size_t>(size)) {}

  const uint32_t generation = fork_generation();
  std::atomic<bool> taken{false};  // by the caller whose job this is; the fields below are that caller's to write

  // The job. Written before the gate opens (release), read by who joined through it (acquire).
  const Body* body = nullptr;
  const MappedRegions* reads = nullptr;  // what the caller may read of files
  size_t parts = 1;                      // shares of this job
  uint32_t limit = 0;                    // helpers that may join it
  RunControl* control = nullptr;
  FloatEnvironment::Word floats = FloatEnvironment::kOurs;  // the caller's, so that any thread gives the same bits

  std::vector<Share> shares;
  alignas(64) std::atomic<uint32_t> gate{0};  // helpers that may still join
  std::atomic<uint64_t> job{0};               // counts them; written before the gate opens
  std::atomic<uint32_t> stretches{0};         // that are under way; orders nothing
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<uint32_t> left{0};  // helpers that have done their part; the caller's futex
  std::atomic<bool> caller_sleeps{false};
  alignas(64) std::atomic<uint32_t> wake{0};  // changes when sleepers are to look again; their futex
  std::atomic<uint32_t> sleepers{0};
  std::vector<std::thread> threads;

  /// What a helper does of the job: where the caller's work is to stop, its own is, too.
  void work_for_caller(size_t home, int64_t slot) {
    if (!control) return work(home, slot);
    Follower follower(*control);
    const RunControl::Scope scope(&follower);
    work(home, slot);
  }

  /// What the caller (`home` 0), or a helper, does of the job.
  void work(size_t home, int64_t slot) {
    const Body& run = *body;
    const MappedReads inherited(reads);
    inside_body = true;
    RunControl* const may = control;
    for (size_t n = 0; n < parts; ++n) {
      Share& share = shares[(home + n) % parts];
      // The look before the claim keeps shares that are used up from being written to.
      while (share.next.load(std::memory_order_relaxed) < share.end) {
        if (may && !may->go_on()) break;
        const int64_t i = share.next.fetch_add(1, std::memory_order_relaxed);
        if (i < share.end) run(i, slot);
      }
    }
    inside_body = false;
  }

  /// Is there a job that may be joined, and that is not number `done`?
  bool called(uint64_t done) const {
    // Acquire: whose gate is seen open, the number of that job, or of a later one, is seen, too.
    return gate.load(std::memory_order_acquire) != 0 && job.load(std::memory_order_relaxed) != done;
  }

  /// The slot of who joins, 0 where nobody may any more.
  uint32_t join() {
    uint32_t open = gate.load(std::memory_order_relaxed);
    while (open != 0) {
      if (gate.compare_exchange_weak(open, open - 1, std::memory_order_acquire, std::memory_order_relaxed))
        return limit - open + 1;
    }
    return 0;
  }

  void help(size_t home) {
    uint64_t done = 0;  // the job that this thread worked on last
    while (true) {
      if (const uint32_t slot = called(done) ? join() : 0) {
        done = job.load(std::memory_order_relaxed);
        FloatEnvironment::set(floats);
        work_for_caller(home, slot);
        // Sequentially consistent with caller_sleeps: either the caller sees this count or we see it asleep.
        left.fetch_add(1, std::memory_order_seq_cst);
        if (caller_sleeps.load(std::memory_order_seq_cst)) futex_wake_all(left);
        continue;
      }
      if (stop.load(std::memory_order_acquire)) return;
      const auto ready = [&] { return called(done) || stop.load(std::memory_order_relaxed); };
      if (spin_until(ready)) continue;
      if (stretches.load(std::memory_order_relaxed) != 0 && spin_until(ready, kSpinInStretch, /*yields=*/true))
        continue;
      // Sequentially consistent with announce(): either it sees a sleeper or we see what it announced.
      sleepers.fetch_add(1, std::memory_order_seq_cst);
      const uint32_t seen = wake.load(std::memory_order_seq_cst);
      const bool open = gate.load(std::memory_order_seq_cst) != 0 && job.load(std::memory_order_relaxed) != done;
      if (!open && !stop.load(std::memory_order_seq_cst)) futex_wait(wake, seen);
      sleepers.fetch_sub(1, std::memory_order_relaxed);
    }
  }

  /// Wakes sleepers until `wanted` helpers are awake.
  void announce(uint32_t wanted) {
    const uint32_t asleep = sleepers.load(std::memory_order_seq_cst);
    const uint32_t awake = static_cast<uint32_t>(threads.size()) - std::min<uint32_t>(asleep, threads.size());
    if (asleep == 0 || awake >= wanted) return;
    wake.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(wake, static_cast<int>(wanted - awake));
  }

  void start(size_t wanted) {
    try {
      while (threads.size() < wanted)
        threads.push_back(start_thread("inferkit-pool", [this, home = threads.size() + 1] { help(home); }));
    } catch (const std::system_error&) {
      // The system gives no more threads: those that there are do the work.
    }
  }

  void run(int64_t count, uint32_t helpers, const Body& job_body) {
    start(helpers);
    helpers = std::min<uint32_t>(helpers, static_cast<uint32_t>(threads.size()));
    body = &job_body;
    reads = MappedReads::current();
    parts = helpers + 1;
    limit = helpers;
    for (size_t p = 0; p < parts; ++p) {
      const auto first = static_cast<int64_t>(p), all = static_cast<int64_t>(parts);
      shares[p].next.store(count / all * first + std::min(first, count % all), std::memory_order_relaxed);
      shares[p].end = count / all * (first + 1) + std::min(first + 1, count % all);
    }
    control = RunControl::current();
    floats = FloatEnvironment::current();
    left.store(0, std::memory_order_relaxed);
    job.fetch_add(1, std::memory_order_relaxed);
    gate.store(helpers, std::memory_order_seq_cst);
    announce(helpers);
    work(0, 0);
    const uint32_t joined = helpers - gate.exchange(0, std::memory_order_acq_rel);
    const auto done = [&] { return left.load(std::memory_order_acquire) == joined; };
    if (spin_until(done)) return;
    caller_sleeps.store(true, std::memory_order_seq_cst);
    for (uint32_t seen; (seen = left.load(std::memory_order_seq_cst)) != joined;) {
      // Only this thread learns that the work is to stop, however long the others still have.
      const bool looks = control && control->go_on();
      futex_wait(left, seen, looks ? SteadyClock::instance().now() + kLook : kNever);
    }
    caller_sleeps.store(false, std::memory_order_relaxed);
  }

  ~State() {
    stop.store(true, std::memory_order_seq_cst);
    wake.fetch_add(1, std::memory_order_seq_cst);
    futex_wake_all(wake);
    for (auto& thread : threads) thread.join();
  }
};

ThreadPool::ThreadPool(int threads) : size_(std::max(1, threads)), state_(std::make_unique<State>(size_).release()) {}

ThreadPool::~ThreadPool() {
  std::unique_ptr<State> last(state_.load(std::memory_order_acquire));
  if (last->generation != fork_generation()) (void)last.release();  // another process's threads cannot be joined
}

ThreadPool& ThreadPool::process() {
  // Never destroyed: threads of the application may still call it while the process exits.
  static ThreadPool& pool = *std::make_unique<ThreadPool>(usable_cpus()).release();
  return pool;
}

ThreadPool::State& ThreadPool::state() {
  State* current = state_.load(std::memory_order_acquire);
  if (current->generation == fork_generation()) return *current;
  // In the child of a fork. The old state is not freed: its threads and their stacks are gone, its locks undefined.
  auto fresh = std::make_unique<State>(size_);
  if (state_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
  return *current;
}

int ThreadPool::size() const {
  const Rehearsal* const rehearsal = Rehearsal::current();
  return rehearsal ? rehearsal->threads() : size_;
}

int ThreadPool::usable_size() const {
  return Rehearsal::current() || size_ == 1 ? size() : std::min(size_, process_cpus());
}

void ThreadPool::parallel_for(int64_t count, int max_threads, FunctionRef<void(int64_t, int64_t)> body) {
  const int64_t threads = std::min<int64_t>({count, max_threads, size()});
  if (Rehearsal* const rehearsal = Rehearsal::current()) return rehearsal->run(count, threads, body);
  const auto alone = [&] { for_parts(count, [&](int64_t i) { body(i, 0); }); };
  if (threads <= 1 || inside_body) return alone();
  State& s = state();
  // Acquire: what the last caller wrote into the job's fields is behind us.
  if (s.taken.exchange(true, std::memory_order_acquire)) return alone();
  s.run(count, static_cast<uint32_t>(threads - 1), body);
  s.taken.store(false, std::memory_order_release);
}

void ThreadPool::parallel_for(int64_t count, int max_threads, FunctionRef<void(int64_t)> body) {
  const auto any_slot = [&](int64_t i, int64_t) { body(i); };
  parallel_for(count, max_threads, FunctionRef<void(int64_t, int64_t)>(any_slot));
}

ThreadPool::Stretch::Stretch(ThreadPool* pool) {
  if (!pool || pool->size_ < 2) return;
  stretches_ = &pool->state().stretches;
  stretches_->fetch_add(1, std::memory_order_relaxed);
}

ThreadPool::Stretch::~Stretch() {
  if (stretches_) stretches_->fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace inferkit
