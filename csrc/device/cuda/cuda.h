// CUDA as a device for programs.
#pragma once
#include <memory>
#include <string>

#include "device/cuda/backend.h"
#include "device/device.h"

namespace inferkit {

/// A device over `backend`, which it keeps.
std::unique_ptr<Device> make_cuda_device(std::unique_ptr<CudaBackend> backend);

/// Why no model can run on CUDA device number `index` in this process; empty where one can. The first call opens the
/// driver, which takes some tenths of a second where there is one.
std::string why_no_cuda(int index = 0);
/// The device; throws Error(kDevice) that says what why_no_cuda says, and what to do.
Device& cuda_device(int index = 0);
/// Whether this build holds kernels for CUDA.
bool has_cuda_kernels();

}  // namespace inferkit
