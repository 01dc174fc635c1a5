// The cores that all batchers of the process together may use, where somebody has set a limit.
#pragma once
#include <atomic>
#include <cstdint>

#include "batching/core_delay.h"
#include "batching/core_share.h"
#include "platform/clock.h"
#include "platform/mutex.h"

namespace inferkit {

struct CoreFigures {
  double seconds = 0;       // core seconds that its runs have had while there was a limit
  double share = 0;         // of those of all batchers since it was made
  uint64_t waits = 0;       // times that a batch could have gone but for a core
  double wait_seconds = 0;  // in all
};

/// Thread-safe; its lock comes after those of schedulers, and is held while a sleeper is woken. Without a limit, who
/// runs pays for one relaxed load.
class Cores {
 public:
  class Use;

  Cores() = default;
  Cores(const Cores&) = delete;
  Cores& operator=(const Cores&) = delete;

  /// The process's own, which is never destroyed. The child of a fork has one of its own, with the same limit: the runs
  /// of the parent are none of its.
  static Cores& process();

  /// 0: no limit. Runs that began without one are not counted.
  void set_limit(int cores) noexcept;
  int limit() const noexcept { return limit_.load(std::memory_order_relaxed); }

 private:
  struct Account : CoreShare::Account {
    Account(double weight_, std::atomic<uint32_t>& bell_) : CoreShare::Account(weight_), bell(bell_) {}
    std::atomic<uint32_t>& bell;  // what a thread sleeps on that waits for a core
  };

  void grant_locked() noexcept REQUIRES(mutex_);
  static void ring(CoreShare::Account& account) noexcept;

  // Relaxed: who sees it late runs a moment longer under the old one. Written under the lock, so that it and share_
  // agree there.
  std::atomic<int> limit_{0};
  mutable Mutex mutex_;
  CoreShare share_ GUARDED_BY(mutex_);
};

/// A run's hold on cores, with what it is to be charged for.
struct CoreHold {
  int cores = 0;       // 0: it is not counted
  Nanos expected = 0;  // that the run takes
};

/// What one batcher has and wants of them. The lock of its scheduler guards it, but for figures' sake.
class Cores::Use {
 public:
  /// `cores` and `bell` outlive it.
  Use(Cores& cores, double weight, std::atomic<uint32_t>& bell);
  ~Use();
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  /// Whether there is anything to ask or to tidy up here.
  bool matters() const noexcept { return cores_.limit() != 0 || kept_ != 0 || waits_; }
  /// Whether a worker waits for a core, or is about to be told that it has one.
  bool waits() const noexcept { return waits_; }

  /// A run that needs so many cores is to begin `now`, and should take `expected`: true with what it holds from then
  /// on. False where it has to wait. With `may_wait` it does so, until the bell rings or rest() is called.
  bool begin(int cores, Nanos expected, bool may_wait, Nanos now, CoreHold& hold) noexcept;
  /// A run that took `took` is over `now`. Its cores are kept until one of the other calls follows.
  void end(CoreHold& hold, Nanos took, Nanos now) noexcept;
  /// A worker comes for cores as soon as it can, and it waits for them from now on.
  void will_come(int cores, Nanos now) noexcept;
  /// What was kept, and is not needed, is free for others.
  void give_back() noexcept;
  /// And nobody waits any more.
  void rest(Nanos now) noexcept;

  /// How many runs on so many cores each the limit lets a batcher have at once.
  int runs_at_once(int cores) const noexcept;
  /// What a batch that comes now should wait for cores that others have; nothing where there is no limit.
  CoreWait delay(Nanos now) const noexcept;
  CoreFigures figures(Nanos now) const noexcept;

 private:
  void start_to_wait(Nanos now) noexcept;
  void waited(Nanos now) noexcept;
  void look_for_delay(Nanos now) noexcept REQUIRES(cores_.mutex_);

  Cores& cores_;
  Account account_;
  int kept_ = 0;
  bool waits_ = false;
  Nanos since_ = 0;  // when it began to wait
  Nanos wait_ = 0;
  uint64_t waits_so_far_ = 0;
  Nanos delayed_since_ = kNever;  // when others began to keep it from its next run; kNever where they do not
  CoreDelay delay_;
};

}  // namespace inferkit
