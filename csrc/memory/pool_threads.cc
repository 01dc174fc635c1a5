// Which of a pool's caches belongs to the calling thread.
#include <array>
#include <vector>

#include "memory/pool_state.h"

namespace inferkit::detail {
namespace {

struct Adopted {
  uint64_t pool_id;
  std::weak_ptr<PoolState> pool;
  ThreadCache* cache;  // the pool's: valid while `pool` is
};

// The last pools that this thread used, found without a search. Ids are never used again, so a slot of a pool that is
// gone never matches.
struct Slot {
  uint64_t pool_id = 0;
  ThreadCache* cache = nullptr;
};
constinit thread_local std::array<Slot, 4> slots{};
constinit thread_local bool thread_ends = false;

/// Hands the thread's caches back when it ends.
struct AdoptedCaches {
  std::vector<Adopted> all;

  ~AdoptedCaches() {
    thread_ends = true;
    slots = {};
    for (const Adopted& adopted : all) {
      if (const auto pool = adopted.pool.lock()) pool->retire_cache(adopted.cache);
    }
  }
};
thread_local AdoptedCaches adopted_caches;

ThreadCache* find_or_adopt(PoolState* state) {
  std::vector<Adopted>& all = adopted_caches.all;
  for (const Adopted& adopted : all) {
    if (adopted.pool_id == state->id()) return adopted.cache;
  }
  std::erase_if(all, [](const Adopted& adopted) { return adopted.pool.expired(); });
  all.reserve(all.size() + 1);  // before the pool counts on getting the cache back
  all.push_back({state->id(), state->weak_from_this(), state->adopt_cache()});
  return all.back().cache;
}

}  // namespace

ThreadCache* this_thread_cache(PoolState* state) noexcept {
  Slot& slot = slots[state->id() % slots.size()];
  if (slot.pool_id == state->id()) [[likely]] {
    return slot.cache;
  }
  if (thread_ends) return nullptr;
  try {
    ThreadCache* cache = find_or_adopt(state);
    slot = {state->id(), cache};
    return cache;
  } catch (const std::bad_alloc&) {
    return nullptr;  // the shared lists serve as well, only slower
  }
}

}  // namespace inferkit::detail
