#include "memory/pool_fork.h"

#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "memory/pool_state.h"

namespace inferkit::detail {
namespace {

struct LivePools {
  std::mutex mutex;  // guards the list, and keeps it still from before a fork until after
  std::vector<PoolState*> pools;
};

LivePools& live() {
  static LivePools& pools = *std::make_unique<LivePools>().release();  // never destroyed: buffers outlive main()
  return pools;
}

void before_fork() {
  live().mutex.lock();
  for (PoolState* pool : live().pools) pool->lock();
}

void after_fork() {
  for (PoolState* pool : live().pools) pool->unlock();
  live().mutex.unlock();
}

}  // namespace

void register_for_fork(PoolState* state) {
  static const int installed = ::pthread_atfork(before_fork, after_fork, after_fork);
  static_cast<void>(installed);  // without memory for the handlers, fork is as unsafe as it is without them
  const std::lock_guard lock(live().mutex);
  live().pools.push_back(state);
}

void unregister_for_fork(PoolState* state) noexcept {
  const std::lock_guard lock(live().mutex);
  std::erase(live().pools, state);
}

}  // namespace inferkit::detail
