// Plans by input shapes (and, after a continuation, by what else they were compiled for), least recently used out
// first; each with the idle sessions that run it.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/plan/plan.h"
#include "engine/run/making.h"

namespace inferkit {

struct PlanCacheStats {
  size_t plans = 0;
  size_t sessions = 0;     // idle ones
  size_t arena_bytes = 0;  // held by idle sessions
  uint64_t hits = 0, misses = 0, evictions = 0;
};

/// Thread-safe. Memory is bounded by `max_plans` and by `max_idle_sessions` arenas each.
class PlanCache {
  struct Entry;

 public:
  using CompileFn = std::function<std::shared_ptr<const Plan>(std::span<const Shape>)>;
  using CompileOtherFn = std::function<std::shared_ptr<const Plan>()>;

  /// A session for one run; goes back to the cache with its owner.
  class Lease {
   public:
    Lease(Lease&&) = default;
    Lease& operator=(Lease&&) = delete;
    ~Lease();
    Session& session() const { return *session_; }
    const Plan& plan() const { return session_->plan(); }
    /// Lives on when the cache forgets it.
    std::shared_ptr<const Plan> shared_plan() const;

   private:
    friend class PlanCache;
    Lease(PlanCache* cache, std::shared_ptr<Entry> entry, std::unique_ptr<Session> session)
        : cache_(cache), entry_(std::move(entry)), session_(std::move(session)) {}
    PlanCache* cache_;
    std::shared_ptr<Entry> entry_;
    std::unique_ptr<Session> session_;
  };

  PlanCache(CompileFn compile, std::shared_ptr<BufferPool> pool, size_t max_plans, size_t max_idle_sessions)
      : compile_(std::move(compile)), pool_(std::move(pool)), max_plans_(max_plans), max_idle_(max_idle_sessions) {}

  /// A session of a plan that is there; empty where these shapes must be compiled first.
  std::optional<Lease> try_acquire(std::span<const Shape> shapes) { return try_acquire(shapes, {}); }
  /// Compiles at the first call for these shapes, while who asks for others goes on; who asks for the same waits for
  /// that one compilation. The cache must outlive the lease.
  Lease acquire(std::span<const Shape> shapes);
  /// The plan of these shapes and of this `key`, which is not empty; `compile` makes it at the first call.
  Lease acquire(std::span<const Shape> shapes, std::string_view key, const CompileOtherFn& compile);
  /// The duration that the plan for these shapes is guessed to take; `fallback` where it is not compiled.
  int64_t estimated_nanos(std::span<const Shape> shapes, int64_t fallback) const;
  PlanCacheStats stats() const;
  /// Frees the idle sessions.
  void trim();
  /// Around fork() alone.
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }
  /// In the child, between them: who compiled is not here.
  void forget_compiling() { compiling_.clear(); }

 private:
  struct Entry {
    std::vector<Shape> shapes;
    std::string key;  // empty for the plans that a run begins with
    std::shared_ptr<const Plan> plan;
    std::vector<std::unique_ptr<Session>> idle;
    uint64_t used = 0;
    bool evicted = false;
  };
  /// A plan that a thread is compiling.
  struct Compiling {
    std::vector<Shape> shapes;
    std::string key;
    std::shared_ptr<Making> making;
  };
  Entry* find(std::span<const Shape> shapes, std::string_view key) const;
  std::optional<Lease> try_acquire(std::span<const Shape> shapes, std::string_view key);
  /// What the caller, who compiles, must end; null where others do already (`others`: wait for it) or have done.
  std::shared_ptr<Making> begin_compiling(std::span<const Shape> shapes, std::string_view key,
                                          std::shared_ptr<Making>& others);
  std::shared_ptr<Entry> insert(std::span<const Shape> shapes, std::string_view key, std::shared_ptr<const Plan> plan);
  Lease fresh(std::shared_ptr<Entry> entry);

  const CompileFn compile_;
  const std::shared_ptr<BufferPool> pool_;
  const size_t max_plans_, max_idle_;
  mutable std::mutex mutex_;  // guards what follows; never held while compiling or running
  std::vector<std::shared_ptr<Entry>> entries_;
  std::vector<Compiling> compiling_;
  uint64_t ticks_ = 0;
  mutable uint64_t hits_ = 0;
  uint64_t misses_ = 0, evictions_ = 0;
};

}  // namespace inferkit
