// CUDA as a device for programs.
#pragma once
#include <memory>
#include <string>

#include "device/cuda/activity.h"
#include "device/cuda/backend.h"
#include "device/device.h"

namespace inferkit {

/// What the models of this process hold of a device: figures of one instant each.
struct CudaMemory {
  PoolStats device, pinned;  // memory of the device, weights included; and of the host that the device reaches
  size_t weight_bytes = 0;
};

class CudaDevice : public Device {
 public:
  virtual CudaMemory memory() const = 0;
  virtual CudaActivity activity() const = 0;
  /// Who has memory of the device, most bytes first.
  virtual std::vector<LeakRow> leaks() const = 0;
  /// Gives back what is free of the device's memory and of the pinned one; returns how many bytes.
  virtual size_t trim() = 0;
  /// A cap on the device's memory; 0 for none. What is in use stays.
  virtual void limit(size_t max_bytes) = 0;
};

/// A device over `backend`, which it keeps.
std::unique_ptr<CudaDevice> make_cuda_device(std::unique_ptr<CudaBackend> backend,
                                             const Clock& clock = SteadyClock::instance());

/// Why no model can run on CUDA device number `index` in this process; empty where one can. The first call opens the
/// driver, which takes some tenths of a second where there is one.
std::string why_no_cuda(int index = 0);
/// The device; throws Error(kDevice) that says what why_no_cuda says, and what to do.
CudaDevice& cuda_device(int index = 0);
/// The numbers of the devices that this process has used. Never opens a driver.
std::vector<int> cuda_devices_in_use();
/// Whether this build holds kernels for CUDA.
bool has_cuda_kernels();

}  // namespace inferkit
