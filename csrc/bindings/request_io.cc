#include "bindings/request_io.h"

#include <cstring>

#include "bindings/array_out.h"
#include "bindings/names.h"

namespace py = pybind11;

namespace inferkit {
namespace {

[[noreturn]] void fail_name(const std::string& message) { throw Error(ErrorCode::kValidation, Reason::kName, message); }

Shape row_shape(const Shape& shape, bool single_row, int64_t rows) {
  Shape out = shape;
  if (single_row) {
    out.erase(0);
  } else {
    out[0] = rows;
  }
  return out;
}

}  // namespace

RequestInputs::RequestInputs(std::span<PyObject* const> arguments, std::span<const PortSpec> specs)
    : specs_(specs), arrays_(specs.size()), views_(specs.size()) {
  if (arguments.size() == 1 && PyDict_Check(arguments[0])) {
    named_ = true;
    for (size_t i = 0; i < specs.size(); ++i) {
      arrays_[i] = find_named(arguments[0], specs[i]);
      if (!arrays_[i]) fail_name(cat("input '", specs[i].name, "' is missing; the model takes ", names_of(specs)));
    }
    refuse_other_names(arguments[0], specs, specs.size(), "input");
    for (size_t i = 0; i < specs.size(); ++i) arrays_[i] = to_array(arrays_[i], specs[i].name);
  } else if (arguments.size() != specs.size()) {
    fail_name(cat("the model takes ", specs.size(), specs.size() == 1 ? " input (" : " inputs (", names_of(specs),
                  "); got ", arguments.size()));
  } else {
    for (size_t i = 0; i < specs.size(); ++i) arrays_[i] = to_array(arguments[i], specs[i].name);
  }
}

void RequestInputs::look() {
  for (size_t i = 0; i < specs_.size(); ++i) views_[i] = view_of(arrays_[i], specs_[i].name);
}

bool RequestInputs::in_place() const {
  for (const StridedView& view : views()) {
    if (!usable_in_place(view)) return false;
  }
  return true;
}

py::tuple tuple_of(std::span<py::object> items) {
  py::tuple out(items.size());
  // Runs no Python: the slots are empty.
  for (size_t i = 0; i < items.size(); ++i) PyTuple_SET_ITEM(out.ptr(), Py_ssize_t(i), items[i].release().ptr());
  return out;
}

py::object pack_results(std::span<py::object> arrays, std::span<const PortSpec> specs, bool named) {
  if (named) {
    py::dict out;
    for (size_t i = 0; i < arrays.size(); ++i) out[name_of(specs[i])] = std::move(arrays[i]);
    return out;
  }
  if (arrays.size() == 1) return std::move(arrays[0]);
  return tuple_of(arrays);
}

py::object copy_results(const Request& request, const BatchOutputs& outputs, std::span<const PortSpec> specs,
                        bool named) {
  const auto copy = [&](const BatchOutput& from) {
    const size_t row_bytes = from.row_bytes();
    void* data = nullptr;
    py::object array = new_array(from.dtype, row_shape(from.shape, request.single_row, request.rows), &data);
    std::memcpy(data, from.buffer.data() + static_cast<size_t>(request.first_row) * row_bytes,
                static_cast<size_t>(request.rows) * row_bytes);
    return array;
  };
  if (outputs.outputs.size() == 1 && !named) return copy(outputs.outputs[0]);
  std::vector<py::object> arrays;
  for (const BatchOutput& output : outputs.outputs) arrays.push_back(copy(output));
  return pack_results(arrays, specs, named);
}

ArraySink::ArraySink(std::span<const PortSpec> specs, BufferPool& pool, bool single_row, bool has_gil)
    : RowSink(specs), specs_(specs), pool_(pool), single_row_(single_row), has_gil_(has_gil) {
  if (has_gil) {
    arrays_.resize(specs.size());
  } else {
    buffers_.resize(specs.size());
  }
}

void* ArraySink::memory(size_t index, DType dtype, const Shape& shape) {
  void* data = nullptr;
  if (has_gil_) {
    arrays_[index] = new_array(dtype, row_shape(shape, single_row_, shape[0]), &data);
    return data;
  }
  buffers_[index] = pool_.acquire(std::max<size_t>(TensorView{dtype, shape, nullptr}.bytes(), 1), "caller output");
  return buffers_[index].data();
}

py::object ArraySink::take(bool named) {
  if (!has_gil_) {
    for (size_t i = 0; i < specs_.size(); ++i) {
      const TensorView& view = views()[i];
      void* data = nullptr;
      arrays_.push_back(new_array(view.dtype, row_shape(view.shape, single_row_, view.shape[0]), &data));
      std::memcpy(data, view.data, view.bytes());
    }
  }
  return pack_results(arrays_, specs_, named);
}

}  // namespace inferkit
