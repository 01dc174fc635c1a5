// What Python asks of CUDA devices.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <limits>
#include <utility>

#include "base/cat.h"
#include "bindings/arguments.h"
#include "bindings/bound.h"
#include "bindings/device_arrays.h"
#include "bindings/py_model.h"
#include "bindings/signal_watch.h"
#include "device/cuda/cuda.h"

namespace py = pybind11;
using namespace py::literals;

namespace inferkit {
namespace {

int device_number(const Given<int64_t>& device) {
  return static_cast<int>(integer(device, "device", 0, std::numeric_limits<int>::max()));
}

/// f(the device), which may open the driver.
template <class F>
auto of_device(const Given<int64_t>& device, F&& f) {
  return without_gil([index = device_number(device), &f] { return f(cuda_device(index)); });
}

}  // namespace

void bind_cuda(py::module_& m) {
  m.def(
      "why_no_cuda",
      [](const Given<int64_t>& device) {
        return without_gil([index = device_number(device)] { return why_no_cuda(index); });
      },
      "device"_a, "Why no model can run on that CUDA device; empty where one can. Opens the driver.");
  m.def(
      "cuda_memory",
      [](const Given<int64_t>& device) {
        const CudaMemory now = of_device(device, [](CudaDevice& on) { return on.memory(); });
        return std::tuple(now.device, now.pinned, now.weight_bytes);
      },
      "device"_a, "The pools of the device's memory and of pinned memory, and the bytes of weights on the device.");
  m.def(
      "cuda_activity",
      [](const Given<int64_t>& device) {
        const CudaActivity now = of_device(device, [](CudaDevice& on) { return on.activity(); });
        return py::dict("launches"_a = now.launches, "failures"_a = now.failures, "in_bytes"_a = now.in_bytes,
                        "out_bytes"_a = now.out_bytes, "uploaded_bytes"_a = now.uploaded_bytes,
                        "busy_seconds"_a = static_cast<double>(now.busy) / 1e9, "running"_a = now.running);
      },
      "device"_a, "What that device has done for the models of this process.");
  m.def(
      "cuda_devices_in_use", [] { return without_gil(cuda_devices_in_use); },
      "The numbers of the devices that this process has used; opens no driver.");
  m.def(
      "cuda_leaks",
      [](const Given<int64_t>& device) { return of_device(device, [](CudaDevice& on) { return on.leaks(); }); },
      "device"_a, "Who has memory of the device, most bytes first.");
  m.def(
      "cuda_trim",
      [](const Given<int64_t>& device) { return of_device(device, [](CudaDevice& on) { return on.trim(); }); },
      "device"_a, "Gives free memory of the device, and pinned one, back to the driver; how many bytes.");
  m.def(
      "cuda_limit",
      [](const Given<std::optional<int64_t>>& max_bytes, const Given<int64_t>& device) {
        const auto most = static_cast<size_t>(integer_or(0, max_bytes, "max_bytes", 256));
        of_device(device, [most](CudaDevice& on) {
          on.limit(most);
          return true;
        });
      },
      "max_bytes"_a, "device"_a, "Caps the device's memory; None for no cap.");
  py::class_<DeviceArray>(
      m, "DeviceArray", py::custom_type_setup(made_elsewhere),
      "An array in the memory of a CUDA device: the answer to one that is.\n\n"
      "It has all that was computed in it when a call returns. torch.from_dlpack(x) and "
      "cupy.from_dlpack(x) make theirs of it without a copy, as does all that takes the CUDA array "
      "interface. Its memory is used again when nobody has the array any more, and what the default "
      "stream does with it is done.")
      .def_property_readonly(
          "shape",
          [](const DeviceArray& self) -> py::typing::Tuple<py::int_, py::ellipsis> {
            py::tuple out(self.shape.rank());
            for (size_t i = 0; i < self.shape.rank(); ++i) out[i] = self.shape[i];
            return out;
          },
          "The sizes of its dimensions.")
      .def_property_readonly(
          "dtype", [](const DeviceArray& self) { return std::string(dtype_name(self.dtype)); },
          "The name of its elements' type.")
      .def_property_readonly("nbytes", &DeviceArray::bytes, "The bytes of its elements.")
      .def_property_readonly(
          "device", [](const DeviceArray& self) { return cat("cuda:", self.device->number()); },
          "Where it is, such as \"cuda:0\".")
      .def("numpy", &DeviceArray::numpy, "Copies it to a numpy array.")
      .def_property_readonly("__cuda_array_interface__", &DeviceArray::cuda_array_interface)
      .def("__dlpack_device__", [](const DeviceArray& self) { return py::make_tuple(2, self.device->number()); })
      .def("__dlpack__", &DeviceArray::dlpack, py::kw_only(), "stream"_a = py::none(), "max_version"_a = py::none(),
           "dl_device"_a = py::none(), "copy"_a = py::none());
  require_init<DeviceArray>();
  m.def(
      "device_failure",
      [](const py::object& model) {
        const std::shared_ptr<Model> native = py_model(model).native;
        return native ? without_gil([&] { return native->device_failure(); }) : std::string();
      },
      "model"_a, "What the device of a model said when it failed; empty where it works.");
}

}  // namespace inferkit
