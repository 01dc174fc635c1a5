// Who sends requests, by name: weights, rates and counts.
#pragma once
#include <atomic>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "batching/fair.h"
#include "batching/layout.h"
#include "platform/clock.h"
#include "platform/mutex.h"

namespace inferkit {

struct ClientOptions {
  double weight = 1;  // its share is in proportion to it
  double rate = 0;    // requests in a second; 0: any number
  double burst = 0;   // requests at once, after a pause; 0: as many as in a second, and at least one
};

struct ClientFigures {
  std::string name;
  bool configured = false;
  uint64_t submitted = 0, answered = 0, refused = 0, rows = 0;
  size_t waiting = 0;
};

/// A token bucket, kept as the time at which it will be full again. Lock-free.
class RateLimit {
 public:
  RateLimit(double rate, double burst);

  /// Takes one, where there is one: 0. Else for how long there will be none.
  Nanos take(Nanos now) noexcept;
  bool full(Nanos now) const noexcept { return full_at_.load(std::memory_order_relaxed) <= now; }

 private:
  Nanos each_;   // what one adds; 0: there is no limit
  Nanos ahead_;  // how far from now the bucket may be full for one to be taken
  std::atomic<Nanos> full_at_{0};
};

/// Thread-safe, but for its flows and strands: the lock of the queue that they are in guards those.
class Client : public RefCounted<Client> {
 public:
  /// Throws std::invalid_argument where the options are out of range.
  Client(std::string name, const ClientOptions& options, bool configured);

  /// Where its requests of that layout and priority wait. Allocates, where they come for the first time.
  StrandRef strand(const RowLayout& layout, int priority);

  /// A request came, at `now`. How long it should have waited for its rate; 0 where it is welcome.
  Nanos arrives(Nanos now) noexcept;
  void refused() noexcept { refused_.fetch_add(1, std::memory_order_relaxed); }
  void answered(int64_t rows) noexcept;
  void hold() noexcept { held_.fetch_add(1, std::memory_order_relaxed); }
  void leave() noexcept { held_.fetch_sub(1, std::memory_order_relaxed); }
  /// Places in the queue.
  size_t held() const noexcept { return held_.load(std::memory_order_relaxed); }
  /// Whether it can be forgotten: it has nothing waiting, and whoever came next would be as welcome as a new client.
  bool idle(Nanos now) const noexcept { return held() == 0 && limit_.full(now); }
  ClientFigures figures() const;

  const std::string name;
  const ClientOptions options;
  const bool configured;

 private:
  struct Known {
    const RowLayout* layout;  // only compared: an idle strand may serve whatever lies there next
    int priority;
    StrandRef strand;
  };
  Mutex mutex_;                                // held to find a strand, or make one
  std::deque<Flow> flows_ GUARDED_BY(mutex_);  // where they lie; their content is the queue's
  std::vector<Known> strands_ GUARDED_BY(mutex_);
  size_t full_ GUARDED_BY(mutex_);  // strands that make a look for those to forget worth it
  RateLimit limit_;
  // Counts; relaxed, as they order nothing.
  std::atomic<uint64_t> submitted_{0}, answered_{0}, refused_{0}, rows_{0};
  std::atomic<size_t> held_{0};
};

/// The clients of a batcher. Thread-safe.
class ClientTable {
 public:
  using Configured = std::vector<std::pair<std::string, ClientOptions>>;
  static constexpr size_t kMost = 4096;  // names that nobody has configured

  /// Throws std::invalid_argument where an option is out of range. `otherwise` is for all other names.
  ClientTable(const Configured& configured, const ClientOptions& otherwise, const Clock& clock);

  /// Throws Error(kQueueFull) where as many others are busy as may be, std::invalid_argument where it can be no name.
  ClientRef find(std::string_view name);
  /// Whose requests those without a name are: null as long as nobody has given one.
  ClientRef anonymous() const { return in_use_.load(std::memory_order_acquire) ? anonymous_ : ClientRef(); }
  std::vector<ClientFigures> figures() const;

 private:
  struct Entry {
    ClientRef client;
    bool used = true;  // since the last look for those to forget
  };
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  size_t forget_idle(bool also_used, Nanos now) REQUIRES(mutex_);
  void make_room() REQUIRES(mutex_);

  const ClientOptions otherwise_;
  const Clock& clock_;
  const ClientRef anonymous_;
  std::atomic<bool> in_use_{false};
  mutable Mutex mutex_;  // guards table_; held for a look-up
  std::unordered_map<std::string, Entry, Hash, std::equal_to<>> table_ GUARDED_BY(mutex_);
  size_t configured_ = 0;
};

}  // namespace inferkit
