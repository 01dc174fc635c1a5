#include "device/cuda/own_process.h"

#include "base/error.h"

namespace inferkit {

void OwnProcess::require() const {
  if (is_this()) return;
  throw Error(ErrorCode::kDevice,
              "this process was forked off one that uses the CUDA device, and a driver does not survive that: "
              "start processes with the method \"spawn\", or load models for CUDA after the fork alone");
}

}  // namespace inferkit
