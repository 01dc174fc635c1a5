#include "bindings/py_runner.h"

#include <algorithm>
#include <cstring>

#include "base/validation.h"
#include "bindings/array_in.h"
#include "bindings/array_out.h"
#include "bindings/cause.h"
#include "bindings/errors.h"
#include "bindings/gil.h"

namespace py = pybind11;

namespace inferkit {
namespace {

class PyRunner final : public Runner {
 public:
  PyRunner(py::object fn, std::vector<PortSpec> inputs, std::vector<PortSpec> outputs)
      : fn_(new py::object(std::move(fn))), inputs_(std::move(inputs)), outputs_(std::move(outputs)) {}

  std::span<const PortSpec> inputs() const override { return inputs_; }
  std::span<const PortSpec> outputs() const override { return outputs_; }
  bool needs_gil() const override { return true; }
  int64_t estimate_nanos(std::span<const Shape>) const override { return 1'000'000; }

  Status run(std::span<const TensorView> inputs, OutputSink& sink) noexcept override {
    if (!Py_IsInitialized()) return {ErrorCode::kClosed, Reason::kNone, "the interpreter is shutting down", nullptr};
    try {
      const py::gil_scoped_acquire gil;
      try {
        call(inputs, sink);
        return {};
      } catch (py::error_already_set& error) {
        Status status{ErrorCode::kInference, Reason::kNone, cat("the callable raised ", describe(error)), nullptr};
        status.cause = make_cause(error);
        return status;
      }
    } catch (...) {  // also where there is no memory to tell what was raised
      return current_exception_status();
    }
  }

  py::object& callable() const { return *fn_; }

 private:
  void call(std::span<const TensorView> inputs, OutputSink& sink) {
    py::tuple arguments(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      void* data = nullptr;
      py::object array = new_array(inputs[i].dtype, inputs[i].shape, &data);
      std::memcpy(data, inputs[i].data, inputs[i].bytes());
      arguments[i] = std::move(array);
    }
    const py::object answer = ask(arguments);
    if (py::isinstance<py::dict>(answer)) {
      const auto by_name = py::reinterpret_borrow<py::dict>(answer);
      for (size_t i = 0; i < outputs_.size(); ++i) {
        if (!by_name.contains(outputs_[i].name.c_str())) fail(i, "is missing from the callable's mapping");
        take(i, by_name[outputs_[i].name.c_str()], sink);
      }
    } else if (py::isinstance<py::tuple>(answer) || py::isinstance<py::list>(answer)) {
      const auto sequence = py::reinterpret_borrow<py::sequence>(answer);
      if (sequence.size() != outputs_.size()) {
        throw Error(ErrorCode::kOutput, Reason::kShape,
                    cat("the callable gave ", sequence.size(), " outputs; ", outputs_.size(), " are declared"));
      }
      for (size_t i = 0; i < outputs_.size(); ++i) take(i, sequence[i], sink);
    } else {
      if (outputs_.size() != 1) {
        throw Error(ErrorCode::kOutput, Reason::kShape,
                    cat("the callable gave one object; ", outputs_.size(), " outputs are declared"));
      }
      take(0, answer, sink);
    }
  }

  /// A callable may call its own model: the depth counts as Python's own calls do.
  py::object ask(const py::tuple& arguments) {
    if (!*fn_) throw Error(ErrorCode::kClosed, "the model's callable was garbage collected");
    const py::object fn = *fn_;
    if (Py_EnterRecursiveCall(" while calling a model's function")) throw py::error_already_set();
    const auto answer = py::reinterpret_steal<py::object>(PyObject_CallObject(fn.ptr(), arguments.ptr()));
    Py_LeaveRecursiveCall();
    if (!answer) throw py::error_already_set();
    return answer;
  }

  [[noreturn]] void fail(size_t i, const std::string& what) const {
    throw Error(ErrorCode::kOutput, Reason::kShape, cat("output '", outputs_[i].name, "' ", what));
  }

  void take(size_t i, const py::object& object, OutputSink& sink) {
    const PortSpec& spec = outputs_[i];
    ArrayIn array;
    try {
      array = array_in(object, spec.name);
    } catch (const Error& error) {
      throw Error(ErrorCode::kOutput, Reason::kShape, cat("the callable's ", error.what()));
    }
    if (array.view.dtype != spec.dtype) {
      fail(i, cat("came as ", dtype_name(array.view.dtype), "; ", dtype_name(spec.dtype), " is declared"));
    }
    const Shape& shape = array.view.shape;
    bool fits = shape.rank() == spec.shape.rank();
    for (size_t d = 0; fits && d < shape.rank(); ++d) fits = spec.shape[d] == Shape::kFree || spec.shape[d] == shape[d];
    if (!fits) fail(i, cat("came with shape ", shape.str(), "; ", spec.shape.str(), " is declared"));
    copy_strided(array.view, sink.allocate(i, spec.dtype, shape), false);
  }

  const std::unique_ptr<py::object, GilDeleter<py::object>> fn_;
  const std::vector<PortSpec> inputs_, outputs_;
};

}  // namespace

PyObject* callable_of(const Runner& runner) {
  const auto* python = dynamic_cast<const PyRunner*>(&runner);
  return python ? python->callable().ptr() : nullptr;
}

void drop_callable(Runner& runner) {
  if (auto* python = dynamic_cast<PyRunner*>(&runner)) {
    const py::object dropped = std::move(python->callable());  // destroyed when the runner no longer holds it
  }
}

std::shared_ptr<Runner> make_py_runner(py::object fn, std::vector<PortSpec> inputs, std::vector<PortSpec> outputs) {
  return std::make_shared<PyRunner>(std::move(fn), std::move(inputs), std::move(outputs));
}

}  // namespace inferkit
