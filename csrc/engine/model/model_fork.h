// Models across fork(): their locks are held around it, so that the child's copies are free and whole. They guard short
// sections alone: what a thread compiles meanwhile the child forgets, and compiles when it wants it.
#pragma once

namespace inferkit {

class Model;
/// Call them where the model is whole.
void register_for_fork(Model* model);
void unregister_for_fork(Model* model) noexcept;

}  // namespace inferkit
