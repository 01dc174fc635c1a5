#include "bindings/request_io.h"

#include <cstring>

#include "bindings/array_out.h"

namespace py = pybind11;

namespace inferkit {
namespace {

[[noreturn]] void fail_name(const std::string& message) { throw Error(ErrorCode::kValidation, Reason::kName, message); }

std::string names_of(std::span<const PortSpec> specs) {
  std::string names;
  for (const PortSpec& spec : specs) names += cat(names.empty() ? "'" : ", '", spec.name, "'");
  return names;
}

/// Null where there is none. Our own reference: to read an array may run Python, and that may change the dict.
py::object find(PyObject* dict, const std::string& name) {
  const py::str key(name);
  PyObject* found = PyDict_GetItemWithError(dict, key.ptr());
  if (!found && PyErr_Occurred()) throw py::error_already_set();
  return py::reinterpret_borrow<py::object>(found);
}

/// As text for a message: any object, any characters.
std::string shown(py::handle object) {
  const auto text = py::reinterpret_steal<py::object>(PyObject_Str(object.ptr()));
  if (!text) throw py::error_already_set();
  const auto bytes = py::reinterpret_steal<py::object>(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "replace"));
  if (!bytes) throw py::error_already_set();
  return {PyBytes_AS_STRING(bytes.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

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

RequestInputs::RequestInputs(std::span<PyObject* const> arguments, std::span<const PortSpec> specs) {
  if (specs.size() > kFew) {
    many_.resize(specs.size());
    keep_many_.resize(specs.size());
  }
  views_ = specs.size() > kFew ? std::span(many_) : std::span(few_).first(specs.size());
  if (arguments.size() == 1 && PyDict_Check(arguments[0])) {
    named_ = true;
    for (const PortSpec& spec : specs) {
      const py::object object = find(arguments[0], spec.name);
      if (!object) fail_name(cat("input '", spec.name, "' is missing; the model takes ", names_of(specs)));
      add(object.ptr(), spec);
    }
    if (PyDict_GET_SIZE(arguments[0]) == static_cast<Py_ssize_t>(specs.size())) return;
    const auto keys = py::reinterpret_steal<py::list>(PyDict_Keys(arguments[0]));
    if (!keys) throw py::error_already_set();
    for (const py::handle key : keys) {
      const std::string name = shown(key);
      bool known = false;
      for (const PortSpec& spec : specs) known |= spec.name == name;
      if (!known) fail_name(cat("the model has no input '", name, "'; it takes ", names_of(specs)));
    }
  } else if (arguments.size() != specs.size()) {
    fail_name(cat("the model takes ", specs.size(), specs.size() == 1 ? " input (" : " inputs (", names_of(specs),
                  "); got ", arguments.size()));
  } else {
    for (size_t i = 0; i < specs.size(); ++i) add(arguments[i], specs[i]);
  }
}

void RequestInputs::add(PyObject* object, const PortSpec& spec) {
  ArrayIn in = array_in(object, spec.name);
  views_[count_] = in.view;
  (keep_many_.empty() ? keep_few_[count_] : keep_many_[count_]) = std::move(in.keep);
  ++count_;
}

bool RequestInputs::in_place() const {
  for (const StridedView& view : views_) {
    if (!usable_in_place(view)) return false;
  }
  return true;
}

py::object pack_results(std::span<py::object> arrays, std::span<const PortSpec> specs, bool named) {
  if (named) {
    py::dict out;
    for (size_t i = 0; i < arrays.size(); ++i) out[specs[i].name.c_str()] = std::move(arrays[i]);
    return out;
  }
  if (arrays.size() == 1) return std::move(arrays[0]);
  py::tuple out(arrays.size());
  for (size_t i = 0; i < arrays.size(); ++i) out[i] = std::move(arrays[i]);
  return out;
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
