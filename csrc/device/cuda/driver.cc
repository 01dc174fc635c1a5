#include "device/cuda/driver.h"

#include <dlfcn.h>

#include "base/cat.h"
#include "base/immortal.h"

namespace inferkit::driver {

std::string Driver::describe(Result error) const {
  const char *name = nullptr, *text = nullptr;
  if (!error_name || error_name(error, &name) != 0 || !name) return cat("CUDA error ", error);
  if (!error_text || error_text(error, &text) != 0 || !text) return name;
  return cat(text, " (", name, ")");
}

Driver open_driver(const char* library) {
  Driver out;
  // Never closed: what the driver starts runs until the process ends.
  void* const handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    out.why_not = cat("the CUDA driver's library ", library, " cannot be opened: there is no NVIDIA driver here");
    return out;
  }
  std::string missing;
#define INFERKIT_FUNCTION(name, symbol, parameters)                        \
  out.name = reinterpret_cast<decltype(out.name)>(dlsym(handle, #symbol)); \
  if (!out.name && missing.empty()) missing = #symbol;
  INFERKIT_CUDA_DRIVER(INFERKIT_FUNCTION)
#undef INFERKIT_FUNCTION
  if (!missing.empty()) {
    out.why_not = cat("the CUDA driver is too old: ", library, " has no function ", missing);
    return out;
  }
  if (const Result error = out.init(0)) {
    out.why_not = cat("the CUDA driver cannot start: ", out.describe(error));
  } else if (const Result counting = out.device_count(&out.devices)) {
    out.why_not = cat("the CUDA driver cannot count its devices: ", out.describe(counting));
  } else if (out.devices == 0) {
    out.why_not = "the CUDA driver has no device";
  }
  return out;
}

const Driver& driver() {
  static const Driver& opened = immortal(open_driver("libcuda.so.1"));
  return opened;
}

}  // namespace inferkit::driver
