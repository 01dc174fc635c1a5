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

/// Memory of a device that holds one array, for as long as this lives.
class CudaArray {
 public:
  virtual ~CudaArray() = default;
  virtual void* data() const = 0;
  /// It is given to who works on it in this stream: what is in there when the array goes is waited for before the
  /// memory is used for something else.
  virtual void give(uintptr_t stream) = 0;
};

/// The streams that every thread can name and nobody can destroy, as CUDA numbers them: the default one, which waits
/// for the streams that block and they for it; and each thread's own.
inline constexpr uintptr_t kLegacyStream = 1, kPerThreadStream = 2;

class CudaDevice : public Device {
 public:
  /// As the driver counts.
  virtual int number() const = 0;
  /// A lane for one call; it comes back at the end, if all went well.
  virtual std::unique_ptr<CudaLane> take_lane() = 0;
  virtual void give_lane(std::unique_ptr<CudaLane> lane) noexcept = 0;
  virtual std::shared_ptr<CudaArray> new_array(size_t bytes) = 0;
  /// As CudaBackend::device_of.
  virtual int device_of(const void* memory) noexcept = 0;
  /// Between the device's memory and any of the host's; returns when it is there.
  virtual void download(void* to, const void* from, size_t bytes, CudaLane& lane) = 0;
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
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
