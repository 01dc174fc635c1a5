#include "engine/run/plan_cache.h"

#include <algorithm>

namespace inferkit {

PlanCache::Entry* PlanCache::find(std::span<const Shape> shapes, std::string_view key) const {
  for (const auto& entry : entries_) {
    if (std::equal(shapes.begin(), shapes.end(), entry->shapes.begin(), entry->shapes.end()) && key == entry->key) {
      return entry.get();
    }
  }
  return nullptr;
}

std::optional<PlanCache::Lease> PlanCache::try_acquire(std::span<const Shape> shapes, std::string_view key) {
  std::shared_ptr<Entry> entry;
  {
    const std::scoped_lock lock(mutex_);
    Entry* found = find(shapes, key);
    if (!found) return std::nullopt;
    ++hits_;
    found->used = ++ticks_;
    // The entry that is asked for again and again stands in front.
    if (entries_.front().get() != found) {
      auto it = std::find_if(entries_.begin(), entries_.end(), [&](const auto& e) { return e.get() == found; });
      std::iter_swap(entries_.begin(), it);
    }
    entry = entries_.front();
    if (!entry->idle.empty()) {
      std::unique_ptr<Session> session = std::move(entry->idle.back());
      entry->idle.pop_back();
      return Lease(this, std::move(entry), std::move(session));
    }
  }
  return fresh(std::move(entry));
}

PlanCache::Lease PlanCache::fresh(std::shared_ptr<Entry> entry) {
  auto session = std::make_unique<Session>(entry->plan, *pool_);
  return Lease(this, std::move(entry), std::move(session));
}

PlanCache::Lease PlanCache::acquire(std::span<const Shape> shapes) {
  if (auto lease = try_acquire(shapes)) return std::move(*lease);
  return acquire(shapes, {}, [&] { return compile_(shapes); });
}

PlanCache::Lease PlanCache::acquire(std::span<const Shape> shapes, std::string_view key,
                                    const CompileOtherFn& compile) {
  for (;;) {
    if (auto lease = try_acquire(shapes, key)) return std::move(*lease);
    std::shared_ptr<Making> others;
    const std::shared_ptr<Making> own = begin_compiling(shapes, key, others);
    if (!own) {
      if (others) others->wait();
      continue;  // where it failed for them we try: it may have been their time that was over
    }
    struct End {
      ~End() {
        {
          const std::scoped_lock lock(cache.mutex_);
          std::erase_if(cache.compiling_, [&](const Compiling& c) { return c.making == making; });
        }
        making->end();
      }
      PlanCache& cache;
      const std::shared_ptr<Making>& making;
    } end{*this, own};
    return fresh(insert(shapes, key, compile()));
  }
}

std::shared_ptr<Making> PlanCache::begin_compiling(std::span<const Shape> shapes, std::string_view key,
                                                   std::shared_ptr<Making>& others) {
  auto own = std::make_shared<Making>();
  Compiling entry{{shapes.begin(), shapes.end()}, std::string(key), own};
  const std::scoped_lock lock(mutex_);
  if (find(shapes, key)) return nullptr;  // made since we looked
  for (const Compiling& c : compiling_) {
    if (std::equal(shapes.begin(), shapes.end(), c.shapes.begin(), c.shapes.end()) && key == c.key &&
        !c.making->by_this_thread()) {
      others = c.making;
      return nullptr;
    }
  }
  compiling_.push_back(std::move(entry));
  return own;
}

std::shared_ptr<PlanCache::Entry> PlanCache::insert(std::span<const Shape> shapes, std::string_view key,
                                                    std::shared_ptr<const Plan> plan) {
  auto entry = std::make_shared<Entry>();
  entry->shapes.assign(shapes.begin(), shapes.end());
  entry->key = key;
  entry->plan = std::move(plan);
  entry->idle.reserve(max_idle_);
  std::vector<std::unique_ptr<Session>> dropped;  // destroyed after the lock is gone
  const std::scoped_lock lock(mutex_);
  entries_.reserve(entries_.size() + 1);
  ++misses_;
  entry->used = ++ticks_;
  if (entries_.size() >= max_plans_) {
    auto oldest = std::min_element(entries_.begin(), entries_.end(),
                                   [](const auto& a, const auto& b) { return a->used < b->used; });
    (*oldest)->evicted = true;
    dropped = std::move((*oldest)->idle);
    entries_.erase(oldest);
    ++evictions_;
  }
  entries_.push_back(entry);
  return entry;
}

std::shared_ptr<const Plan> PlanCache::Lease::shared_plan() const { return entry_->plan; }

PlanCache::Lease::~Lease() {
  if (!session_) return;
  const std::scoped_lock lock(cache_->mutex_);
  if (!entry_->evicted && entry_->idle.size() < cache_->max_idle_) entry_->idle.push_back(std::move(session_));
}

int64_t PlanCache::estimated_nanos(std::span<const Shape> shapes, int64_t fallback) const {
  const std::scoped_lock lock(mutex_);
  const Entry* found = find(shapes, {});
  return found ? found->plan->estimated_nanos : fallback;
}

PlanCacheStats PlanCache::stats() const {
  const std::scoped_lock lock(mutex_);
  PlanCacheStats out;
  out.plans = entries_.size();
  out.hits = hits_;
  out.misses = misses_;
  out.evictions = evictions_;
  for (const auto& entry : entries_) {
    out.sessions += entry->idle.size();
    out.arena_bytes += entry->idle.size() * entry->plan->arena_bytes;
  }
  return out;
}

void PlanCache::trim() {
  std::vector<std::unique_ptr<Session>> dropped;  // destroyed after the lock is gone
  const std::scoped_lock lock(mutex_);
  for (const auto& entry : entries_) {
    std::move(entry->idle.begin(), entry->idle.end(), std::back_inserter(dropped));
    entry->idle.clear();
  }
}

}  // namespace inferkit
