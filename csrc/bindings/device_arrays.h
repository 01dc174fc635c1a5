// Arrays in a CUDA device's memory: from what other libraries have, and to them, without a copy through the host.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string_view>

#include "base/scan.h"
#include "device/cuda/cuda.h"

namespace inferkit {

/// Whether it is an array that says of itself that it lies in the memory of a CUDA device. Runs Python.
bool lies_on_device(PyObject* object);

struct DeviceInput {
  StridedView view;       // whose data is an address of the device
  pybind11::object keep;  // what owns the memory
};
/// The array to read `object` by, row-major; `lane` then waits for what its library does to it. Runs Python. Throws
/// Error(kValidation) that names the input.
DeviceInput device_array_in(pybind11::handle object, std::string_view name, CudaDevice& device, CudaLane& lane);

/// Finds floats that are not `allowed`: PlacedInput::scan.
void scan_on_device(LaunchQueue& queue, const void* values, size_t bytes, NonFinite allowed, uint32_t* found);

/// A lane of a device for one call; nothing of it goes on when this ends.
class LaneLease {
 public:
  explicit LaneLease(CudaDevice& device) : device_(device), lane_(device.take_lane()) {}
  ~LaneLease();
  LaneLease(const LaneLease&) = delete;
  LaneLease& operator=(const LaneLease&) = delete;
  CudaLane& operator*() const { return *lane_; }
  CudaLane* operator->() const { return lane_.get(); }

 private:
  CudaDevice& device_;
  std::unique_ptr<CudaLane> lane_;
};

/// A result in a device's memory, row-major, with all that was computed in it.
struct DeviceArray {
  CudaDevice* device;
  std::shared_ptr<CudaArray> memory;
  DType dtype;
  Shape shape;

  size_t bytes() const { return static_cast<size_t>(shape.elements()) * dtype_size(dtype); }
  pybind11::dict cuda_array_interface() const;
  /// The arguments are __dlpack__'s.
  pybind11::object dlpack(const pybind11::object& stream, const pybind11::object& max_version,
                          const pybind11::object& dl_device, const pybind11::object& copy) const;
  pybind11::object numpy() const;
};

/// As an array of the library that `given` is of, where that is CuPy or torch; else as a DeviceArray.
pybind11::object device_array_out(pybind11::handle given, DeviceArray array);

}  // namespace inferkit
