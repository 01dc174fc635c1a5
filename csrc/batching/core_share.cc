#include "batching/core_share.h"

#include <algorithm>
#include <utility>

namespace inferkit {

void CoreShare::join(Account& account) {
  waiting_.reserve(accounts_ + 1);
  ++accounts_;
  account.pass = now_;
  account.others_used = used_;
}

void CoreShare::leave(Account& account) noexcept {
  forget(account);
  in_use_ -= account.held;
  account.held = 0;
  --accounts_;
}

CoreShare::Account* CoreShare::first() const noexcept {
  const auto before = [](const Account* a, const Account* b) {
    return a->pass != b->pass ? a->pass < b->pass : a->turn < b->turn;
  };
  const auto found = std::min_element(waiting_.begin(), waiting_.end(), before);
  return found == waiting_.end() ? nullptr : *found;
}

/// To where the others are.
void CoreShare::rise(Account& account) noexcept { account.pass = std::max(account.pass, now_); }

int CoreShare::take(Account& account, int kept, int cores, double nanos, bool waits) noexcept {
  in_use_ -= kept;  // but it holds them still, so it is not idle
  cores = std::min(cores, limit_);
  const int taken = begin(account, cores, nanos);
  if (taken == 0 && waits) want(account, cores);
  account.held -= kept;
  return taken;
}

int CoreShare::begin(Account& account, int cores, double nanos) noexcept {
  int taken = std::exchange(account.granted, 0);
  if (taken == 0) {
    const Account* next = first();
    // With nobody waiting, whoever comes had all that it wanted so far.
    if (!next || (account.held == 0 && !account.waits())) rise(account);
    if (next && next != &account && next->pass <= account.pass) return 0;
    if (in_use_ + cores > limit_) return 0;
    taken = cores;
    account.held += cores;
    in_use_ += cores;
  }
  now_ = std::max(now_, account.pass);
  account.pass += nanos * taken / account.weight;
  return taken;
}

void CoreShare::wait(Account& account, int kept, int cores) noexcept {
  in_use_ -= kept;
  want(account, std::min(cores, limit_));
  account.held -= kept;
}

void CoreShare::want(Account& account, int cores) noexcept {
  if (!account.waits()) {
    if (account.held == 0) rise(account);
    account.turn = ++turns_;
    waiting_.push_back(&account);
  }
  account.wanted = cores;
}

void CoreShare::forget(Account& account) noexcept {
  if (account.waits()) std::erase(waiting_, &account);
  account.wanted = 0;
  in_use_ -= account.granted;
  account.held -= account.granted;
  account.granted = 0;
}

void CoreShare::settle(Account& account, double spent, double expected) noexcept {
  account.pass += (spent - expected) / account.weight;
  account.used += spent;
  used_ += spent;
}

void CoreShare::give_back(Account& account, int cores) noexcept {
  in_use_ -= cores;
  account.held -= cores;
}

CoreShare::Account* CoreShare::grant() noexcept {
  Account* next = first();
  if (!next) return nullptr;
  const int cores = std::min(next->wanted, limit_);  // which may have become smaller
  if (in_use_ + cores > limit_) return nullptr;
  next->granted = cores;
  next->held += next->granted;
  in_use_ += next->granted;
  std::erase(waiting_, next);
  next->wanted = 0;
  return next;
}

}  // namespace inferkit
