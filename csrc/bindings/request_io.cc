#include "bindings/request_io.h"

#include <algorithm>
#include <cstring>

#include "base/counted.h"
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

/// Inputs that stay null are left out: look() shows what stands for them.
RequestInputs::RequestInputs(std::span<PyObject* const> arguments, std::span<const PortSpec> specs)
    : specs_(specs), arrays_(specs.size()), views_(specs.size()) {
  if (arguments.size() == 1 && PyDict_Check(arguments[0])) {
    named_ = true;
    size_t found = 0;
    for (size_t i = 0; i < specs.size(); ++i) {
      arrays_[i] = find_named(arguments[0], specs[i]);
      if (arrays_[i]) {
        ++found;
      } else if (!specs[i].fallback) {
        fail_name(cat("input '", specs[i].name, "' is missing; the model takes ", names_of(specs)));
      }
    }
    refuse_other_names(arguments[0], specs, found, "input");
    complete_ = found == specs.size();
    for (size_t i = 0; i < specs.size(); ++i) {
      if (arrays_[i]) arrays_[i] = to_port_array(arrays_[i], specs[i]);
    }
    return;
  }
  const size_t given = arguments.size();
  if (given > specs.size() || std::ranges::any_of(specs.subspan(given), [](const auto& s) { return !s.fallback; })) {
    fail_name(cat("the model takes ", counted(specs.size(), "input"), " (", names_of(specs), "); got ", given));
  }
  complete_ = given == specs.size();
  for (size_t i = 0; i < given; ++i) arrays_[i] = to_port_array(arguments[i], specs[i]);
}

void RequestInputs::look(BufferPool& pool, std::span<const PortSpec> now) {
  for (size_t i = 0; i < specs_.size(); ++i) {
    if (!arrays_[i]) {
      const auto& value = fallbacks_.emplace_back(now[i].fallback ? now[i].fallback : specs_[i].fallback);
      views_[i] = StridedView::contiguous(*value);
      continue;
    }
    views_[i] = specs_[i].dtype == DType::kString ? port_view(arrays_[i], specs_[i], pool, texts_.emplace_back())
                                                  : view_of(arrays_[i], specs_[i].name, specs_[i].dtype);
  }
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
    const TensorView part = request.part_of(from);
    Shape shape = part.shape;
    if (request.single_row) shape.erase(0);
    if (from.dtype == DType::kString) {
      return text_array({part.as<std::string_view>(), static_cast<size_t>(shape.elements())}, shape);
    }
    void* data = nullptr;
    py::object array = new_array(from.dtype, shape, &data);
    std::memcpy(data, part.data, part.bytes());
    return array;
  };
  if (outputs.outputs.size() == 1 && !named) return copy(outputs.outputs[0]);
  std::vector<py::object> arrays;
  for (const BatchOutput& output : outputs.outputs) arrays.push_back(copy(output));
  return pack_results(arrays, specs, named);
}

ArraySink::ArraySink(std::span<const PortSpec> specs, BufferPool& pool, bool single_row, bool has_gil)
    : RowSink(specs, pool),
      specs_(specs),
      pool_(pool),
      single_row_(single_row),
      has_gil_(has_gil),
      arrays_(specs.size()) {}

void* ArraySink::memory(size_t index, DType dtype, const Shape& shape) {
  if (has_gil_ && dtype != DType::kString) {
    void* data = nullptr;
    try {
      arrays_[index] = new_array(dtype, row_shape(shape, single_row_, shape[0]), &data);
    } catch (py::error_already_set& error) {
      // The batcher knows no Python, and would take it for a fault of the model's.
      if (error.matches(PyExc_MemoryError)) throw std::bad_alloc();
      throw;
    }
    return data;
  }
  if (buffers_.empty()) buffers_.resize(specs_.size());
  if (dtype == DType::kString && texts_.empty()) texts_.resize(specs_.size());
  buffers_[index] = pool_.acquire(std::max<size_t>(TensorView{dtype, shape, nullptr}.bytes(), 1), "caller output");
  return buffers_[index].data();
}

py::object ArraySink::take(bool named) {
  for (size_t i = 0; i < buffers_.size(); ++i) {
    if (!buffers_[i]) continue;
    const TensorView& view = views()[i];
    const Shape shape = row_shape(view.shape, single_row_, view.shape[0]);
    if (view.dtype == DType::kString) {
      arrays_[i] = text_array({view.as<std::string_view>(), static_cast<size_t>(shape.elements())}, shape);
      continue;
    }
    void* data = nullptr;
    arrays_[i] = new_array(view.dtype, shape, &data);
    std::memcpy(data, view.data, view.bytes());
  }
  return pack_results(arrays_.span(), specs_, named);
}

}  // namespace inferkit
