// A driver, and what it gave, belong to the process that asked it: a child of fork() has neither.
#pragma once
#include <cstdint>

#include "platform/fork.h"

namespace inferkit {

/// The process that made it.
class OwnProcess {
 public:
  bool is_this() const { return generation_ == fork_generation(); }
  /// Throws Error(kDevice) in another one: before a lock is taken that a thread may have held which is not there.
  void require() const;

 private:
  const uint32_t generation_ = fork_generation();
};

}  // namespace inferkit
