// The error of a request that is refused at the door.
#pragma once
#include "base/error.h"
#include "platform/clock.h"

namespace inferkit {

/// Says when another attempt may fare better.
class Refusal : public Error {
 public:
  Refusal(ErrorCode code, const std::string& message, Nanos retry_after)
      : Error(code, message), retry_after_(retry_after) {}

  /// From now on; kNever where that is not known, or no wait would help.
  Nanos retry_after() const { return retry_after_; }

 private:
  Nanos retry_after_;
};

}  // namespace inferkit
