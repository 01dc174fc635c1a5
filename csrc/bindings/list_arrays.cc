#include "bindings/list_arrays.h"

#include <algorithm>
#include <cstring>

#include "base/counted.h"
#include "base/scan.h"
#include "bindings/array_in.h"
#include "bindings/array_out.h"
#include "bindings/text_arrays.h"
#include "engine/compile/lists.h"
#include "graph/tensor_list.h"
#include "memory/buffer_pool.h"

namespace py = pybind11;

namespace inferkit {
namespace {

/// A copy of what the array holds now, of the port's type. It is `input`, or an item of it.
Tensor tensor_in(py::handle object, const PortSpec& port, std::string_view input, const PortChecks& checks) {
  const py::object array = to_port_array(object, port);
  BufferPool& pool = *BufferPool::process_default();
  auto memory = std::make_shared<Buffer>();
  Tensor out;
  if (port.dtype == DType::kString) {
    const StridedView view = port_view(array, port, pool, *memory);
    out = {view.dtype, view.shape, view.data, memory};
    return out;
  }
  const StridedView view = view_of(array, port.name, port.dtype);
  if (view.dtype != port.dtype) {
    throw Error(ErrorCode::kValidation, Reason::kDtype,
                cat("input '", port.name, "' has dtype ", dtype_name(view.dtype), "; expected ", dtype_name(port.dtype),
                    ": convert it with .astype('", dtype_name(port.dtype), "')"));
  }
  const size_t bytes = static_cast<size_t>(view.shape.elements()) * dtype_size(view.dtype);
  *memory = pool.acquire(std::max<size_t>(bytes, 1), "input of a sequence");
  copy_input(port.name, input, view, memory->data(), checks);
  out = {view.dtype, view.shape, memory->data(), memory};
  return out;
}

Tensor list_of(const PortSpec& spec, TensorList list) {
  Tensor out;
  out.dtype = spec.dtype;
  out.shape = {0};
  out.list = std::make_shared<const TensorList>(std::move(list));
  return out;
}

}  // namespace

Tensor list_in(py::handle object, const PortSpec& spec, const PortChecks& checks) {
  if (object.is_none() && spec.optional) return list_of(spec, {.none = true, .items = {}});
  if (!spec.sequence) return tensor_in(object, spec, spec.name, checks);
  if (!PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr())) {
    throw Error(ErrorCode::kValidation, Reason::kDtype,
                cat("input '", spec.name, "' is a sequence: expected a list of arrays",
                    spec.optional ? ", or None; got " : "; got ", Py_TYPE(object.ptr())->tp_name));
  }
  const auto items = py::reinterpret_steal<py::tuple>(PySequence_Tuple(object.ptr()));  // what follows may change it
  if (!items) throw py::error_already_set();
  if (items.size() > kMostItems) {
    throw Error(
        ErrorCode::kValidation, Reason::kTooLarge,
        cat("input '", spec.name, "' has ", counted(items.size(), "array"), "; a sequence may have ", kMostItems));
  }
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < items.size(); ++i) {
    PortSpec item = spec;
    item.name = cat(spec.name, "[", i, "]");
    tensors.push_back(tensor_in(items[i], item, spec.name, checks));
  }
  return list_of(spec, {.none = false, .items = TensorItems(std::move(tensors))});
}

py::object list_out(DType dtype, std::span<const TensorView> items, bool none) {
  if (none) return py::none();
  py::list out;
  for (const TensorView& item : items) {
    if (dtype == DType::kString) {
      const auto count = static_cast<size_t>(item.shape.elements());
      out.append(text_array({item.as<std::string_view>(), count}, item.shape));
      continue;
    }
    void* data = nullptr;
    const py::object array = new_array(item.dtype, item.shape, &data);
    if (item.bytes() != 0) std::memcpy(data, item.data, item.bytes());
    out.append(array);
  }
  return out;
}

}  // namespace inferkit
