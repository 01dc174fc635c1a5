// Whose run the next free core is for, among models that share a bounded number of them: stride scheduling, as a pure
// class, without a lock and without a clock.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace inferkit {

/// Each account has a pass: the core time that it has used, divided by its weight. Of those that wait, the one with the
/// smallest pass goes next, and of equals the one that has waited longest. Nobody overtakes it, so a run that needs
/// several cores gets them. Who had nothing to wait for starts where the others are: idleness saves no credit up, and
/// what was used while nobody else wanted it is no debt.
///
/// Not thread-safe. Only join() allocates.
class CoreShare {
 public:
  struct Account {
    explicit Account(double weight_) : weight(weight_) {}
    Account(const Account&) = delete;
    Account& operator=(const Account&) = delete;

    bool waits() const { return wanted > 0; }

    const double weight;
    double pass = 0;
    double used = 0;         // core nanoseconds
    double others_used = 0;  // what had been used by all when it joined
    int held = 0;            // cores, those included that it was granted
    int granted = 0;         // cores that are kept for it until it comes for them
    int wanted = 0;          // cores that it waits for
    uint64_t turn = 0;       // in which order it began to wait
  };

  /// 0: any number. Cores that are held stay held; a smaller limit comes true as they are given back.
  void set_limit(int cores) noexcept { limit_ = cores; }
  int limit() const noexcept { return limit_; }
  int in_use() const noexcept { return in_use_; }
  double used() const noexcept { return used_; }
  /// Whether another account has cores, or waits for some.
  bool others_have(const Account& account) const noexcept {
    return in_use_ > account.held || waiting_.size() > (account.waits() ? 1 : 0);
  }

  /// Whether it is others that one waits for: who has so many cores that it may have no more waits for its own runs.
  bool others_delay(const Account& account) const noexcept {
    return account.waits() && others_have(account) && account.held + std::min(account.wanted, limit_) <= limit_;
  }

  void join(Account& account);
  /// What it holds and waits for is let go of.
  void leave(Account& account) noexcept;

  /// A run of that account is to begin that needs so many cores, no more than the limit, and should take so long. It
  /// gets those that the account was granted, or free ones, where nobody who waits comes first. `kept` are those of a
  /// run of the same account that has just ended, which others get in the case that it has to wait. Then this is 0, and
  /// with `waits`, it waits until it is granted cores or forgets about them.
  int take(Account& account, int kept, int cores, double nanos, bool waits) noexcept;
  /// As take() where it has to wait, whoever else might.
  void wait(Account& account, int kept, int cores) noexcept;
  /// It waits no longer, and what it was granted is free.
  void forget(Account& account) noexcept;
  /// A run is over, but for its cores: it took so many core nanoseconds, and was expected to take so many.
  void settle(Account& account, double spent, double expected) noexcept;
  void give_back(Account& account, int cores) noexcept;
  template <class Visit>
  void for_each_waiting(Visit&& visit) {
    for (Account* account : waiting_) visit(*account);
  }
  /// The next account that gets what it waits for: its cores are kept for it. Null where there is none, or no room.
  Account* grant() noexcept;

 private:
  Account* first() const noexcept;
  int begin(Account& account, int cores, double nanos) noexcept;
  void want(Account& account, int cores) noexcept;
  void rise(Account& account) noexcept;

  int limit_ = 0;
  int in_use_ = 0;
  double now_ = 0;   // the pass of whoever began last: virtual time, which never goes back
  double used_ = 0;  // by all, ever
  uint64_t turns_ = 0;
  size_t accounts_ = 0;
  std::vector<Account*> waiting_;  // with room for all accounts
};

}  // namespace inferkit
