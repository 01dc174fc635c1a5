#include "device/cuda/activity.h"

namespace inferkit {

ActivityMeter::Launch::Launch(ActivityMeter& meter, uint64_t in_bytes, uint64_t out_bytes) : meter_(meter) {
  const std::scoped_lock lock(meter_.mutex_);
  CudaActivity& sums = meter_.so_far_;
  if (sums.running++ == 0) meter_.since_ = meter_.clock_.now();
  ++sums.launches;
  sums.in_bytes += in_bytes;
  sums.out_bytes += out_bytes;
}

ActivityMeter::Launch::~Launch() {
  const std::scoped_lock lock(meter_.mutex_);
  if (--meter_.so_far_.running == 0) meter_.so_far_.busy += meter_.clock_.now() - meter_.since_;
}

void ActivityMeter::note_failure() {
  const std::scoped_lock lock(mutex_);
  ++so_far_.failures;
}

CudaActivity ActivityMeter::now() const {
  const std::scoped_lock lock(mutex_);
  CudaActivity out = so_far_;
  if (out.running > 0) out.busy += clock_.now() - since_;
  return out;
}

}  // namespace inferkit
