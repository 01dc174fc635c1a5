// What Status::cause points to: an exception of Python's, of which nothing more is known here.
#pragma once
#include <memory>

#include "base/error.h"

namespace inferkit {

class Cause {
 public:
  virtual ~Cause() = default;
  /// One of its own for who comes to have the same error, so that a garbage collector sees who refers to what. Null
  /// where there is no memory. One thread at a time; may take Python's GIL.
  virtual std::shared_ptr<Cause> another() noexcept = 0;
};

/// Gives a copy of a status a cause of its own; without memory they share it.
inline void part_cause(Status& status) noexcept {
  if (!status.cause) return;
  if (auto own = std::static_pointer_cast<Cause>(status.cause)->another()) status.cause = std::move(own);
}

}  // namespace inferkit
