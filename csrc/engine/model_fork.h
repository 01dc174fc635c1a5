// Models across fork(): their locks are held around it, so that the child's copies are free and whole. A fork waits for
// a compilation that is under way.
#pragma once

namespace inferkit {

class Model;
/// Call them where the model is whole, and its pool registered before it: handlers before a fork run in reverse order,
/// and a compilation that must end first may need the pool.
void register_for_fork(Model* model);
void unregister_for_fork(Model* model) noexcept;

}  // namespace inferkit
