// Pools across fork(): their locks are held around it, so that the child's copies are free and whole. Internal to
// memory/.
#pragma once

namespace inferkit::detail {

class PoolState;
void register_for_fork(PoolState* state);
void unregister_for_fork(PoolState* state) noexcept;

}  // namespace inferkit::detail
