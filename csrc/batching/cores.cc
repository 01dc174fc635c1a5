#include "batching/cores.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

#include "platform/fork.h"
#include "platform/futex.h"

namespace inferkit {
namespace {

/// Those of one process; a child of fork() cannot use its parent's, whose lock somebody may have held.
struct OfProcess {
  uint32_t generation = fork_generation();
  Cores cores;
};

}  // namespace

Cores& Cores::process() {
  static std::atomic<OfProcess*> current{std::make_unique<OfProcess>().release()};
  OfProcess* known = current.load(std::memory_order_acquire);
  while (known->generation != fork_generation()) {
    auto mine = std::make_unique<OfProcess>();
    mine->cores.set_limit(known->cores.limit());
    // Where another thread was first, `known` is that one's.
    if (current.compare_exchange_strong(known, mine.get(), std::memory_order_acq_rel)) known = mine.release();
  }
  return known->cores;
}

/// Under the lock, so that the sleeper's batcher is there still.
void Cores::ring(CoreShare::Account& account) noexcept {
  std::atomic<uint32_t>& bell = static_cast<Account&>(account).bell;
  bell.fetch_add(1, std::memory_order_release);  // a worker that is about to sleep has looked at it before it asked
  futex_wake(bell, 1);
}

void Cores::grant_locked() noexcept {
  while (CoreShare::Account* next = share_.grant()) ring(*next);
}

void Cores::set_limit(int cores) noexcept {
  MutexLock lock(mutex_);
  limit_.store(cores, std::memory_order_relaxed);
  share_.set_limit(cores);
  if (cores == 0) {
    share_.for_each_waiting([](CoreShare::Account& account) { ring(account); });  // they need none
  } else {
    grant_locked();
  }
}

Cores::Use::Use(Cores& cores, double weight, std::atomic<uint32_t>& bell) : cores_(cores), account_(weight, bell) {
  MutexLock lock(cores_.mutex_);
  cores_.share_.join(account_);
}

Cores::Use::~Use() {
  MutexLock lock(cores_.mutex_);
  cores_.share_.leave(account_);
  if (cores_.limit() != 0) cores_.grant_locked();
}

void Cores::Use::waited(Nanos now) noexcept {
  delayed_since_ = kNever;
  if (std::exchange(waits_, false)) wait_ += now - since_;
}

/// While it waits with all the cores that it may have, it waits for runs of its own.
void Cores::Use::look_for_delay(Nanos now) noexcept {
  if (account_.granted > 0) return;  // it was delayed until then, as begin() is going to learn
  if (!cores_.share_.others_delay(account_)) {
    delayed_since_ = kNever;
  } else if (delayed_since_ == kNever) {
    delayed_since_ = now;
  }
}

void Cores::Use::start_to_wait(Nanos now) noexcept {
  if (std::exchange(waits_, true)) return;
  since_ = now;
  ++waits_so_far_;
}

bool Cores::Use::begin(int cores, Nanos expected, bool may_wait, Nanos now, CoreHold& hold) noexcept {
  MutexLock lock(cores_.mutex_);
  const int kept = std::exchange(kept_, 0);
  if (cores_.limit() == 0) {
    cores_.share_.give_back(account_, kept);
    cores_.share_.forget(account_);
    waited(now);
    hold = {};
    return true;
  }
  const int taken = cores_.share_.take(account_, kept, cores, double(expected), may_wait);
  cores_.grant_locked();
  if (taken > 0) {
    delay_.learn(delayed_since_ == kNever ? 0 : now - delayed_since_, now);
    delayed_since_ = kNever;
    if (!account_.waits()) waited(now);
    look_for_delay(now);
    hold = {taken, expected};
    return true;
  }
  if (may_wait) start_to_wait(now);
  look_for_delay(now);
  return false;
}

void Cores::Use::end(CoreHold& hold, Nanos took, Nanos now) noexcept {
  const auto [held, expected] = std::exchange(hold, {});
  kept_ += held;
  MutexLock lock(cores_.mutex_);
  cores_.share_.settle(account_, double(took) * held, double(expected) * held);
  look_for_delay(now);
}

void Cores::Use::will_come(int cores, Nanos now) noexcept {
  MutexLock lock(cores_.mutex_);
  const int kept = std::exchange(kept_, 0);
  if (cores_.limit() == 0 || waits_) {
    cores_.share_.give_back(account_, kept);
  } else {
    cores_.share_.wait(account_, kept, cores);
    start_to_wait(now);
  }
  if (cores_.limit() != 0) cores_.grant_locked();
  look_for_delay(now);
}

void Cores::Use::give_back() noexcept {
  const int kept = std::exchange(kept_, 0);
  if (kept == 0) return;
  MutexLock lock(cores_.mutex_);
  cores_.share_.give_back(account_, kept);
  if (cores_.limit() != 0) cores_.grant_locked();
}

void Cores::Use::rest(Nanos now) noexcept {
  if (kept_ == 0 && !waits_) return;
  MutexLock lock(cores_.mutex_);
  cores_.share_.give_back(account_, std::exchange(kept_, 0));
  cores_.share_.forget(account_);
  waited(now);
  if (cores_.limit() != 0) cores_.grant_locked();
}

int Cores::Use::runs_at_once(int cores) const noexcept {
  const int limit = cores_.limit();
  return limit == 0 ? std::numeric_limits<int>::max() : std::max(1, limit / std::max(1, cores));
}

CoreWait Cores::Use::delay(Nanos now) const noexcept {
  MutexLock lock(cores_.mutex_);
  if (cores_.limit() == 0) return {};
  const Nanos waiting = delayed_since_ == kNever ? 0 : now - delayed_since_;
  return delay_.expected(waiting, cores_.share_.others_have(account_), now);
}

CoreFigures Cores::Use::figures(Nanos now) const noexcept {
  MutexLock lock(cores_.mutex_);
  CoreFigures out;
  out.seconds = account_.used * 1e-9;
  const double all = cores_.share_.used() - account_.others_used;
  out.share = all > 0 ? account_.used / all : 0;
  out.waits = waits_so_far_;
  out.wait_seconds = double(wait_ + (waits_ ? now - since_ : 0)) * 1e-9;
  return out;
}

}  // namespace inferkit
