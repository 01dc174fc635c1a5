// What work that is cut for threads would take on a machine with more of them.
#pragma once
#include <cstdint>
#include <vector>

#include "platform/clock.h"
#include "platform/thread_pool.h"

namespace inferkit {

/// While one lives, what the thread that made it gives to pools runs on that thread alone, cut as if the pools had
/// `threads` threads, and each piece is clocked. One at a time for each thread; it ends before what it was made in
/// does.
class Rehearsal {
 public:
  explicit Rehearsal(int threads, const Clock& clock = SteadyClock::instance());
  ~Rehearsal();
  Rehearsal(const Rehearsal&) = delete;
  Rehearsal& operator=(const Rehearsal&) = delete;

  /// That of the calling thread; null where there is none.
  static Rehearsal* current();

  int threads() const { return threads_; }
  /// How often several threads would have begun together and waited for each other.
  int64_t synchronizations() const { return synchronizations_; }
  /// What the pieces of those took, one after another.
  Nanos alone() const { return alone_; }
  /// What they would take side by side: each piece goes to the thread that is free first.
  Nanos together() const { return together_; }

  /// Of the pool: pieces [0, count), for that many threads.
  void run(int64_t count, int64_t threads, const FunctionRef<void(int64_t, int64_t)>& body);

 private:
  const int threads_;
  const Clock& clock_;
  int64_t synchronizations_ = 0;
  Nanos alone_ = 0, together_ = 0;
  bool inside_ = false;         // a piece, which does all that it gives to pools itself
  std::vector<Nanos> free_at_;  // of each thread
};

/// What it takes the threads of `pool` to begin together and to wait for each other, with nothing to do: the
/// least of some hundred times. 0 where the process has one CPU, or the threads have other things to do.
Nanos synchronization_nanos(ThreadPool& pool = ThreadPool::process());

}  // namespace inferkit
