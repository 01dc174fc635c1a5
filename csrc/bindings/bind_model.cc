#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/array_out.h"
#include "bindings/errors.h"
#include "bindings/model_call.h"
#include "bindings/py_model.h"
#include "bindings/py_runner.h"
#include "engine/op_registry.h"
#include "graph/onnx_reader.h"

namespace py = pybind11;

namespace inferkit {

PyModel& py_model(py::handle object) { return py::cast<PyModel&>(object); }

namespace {

using PortTuple = std::tuple<std::string, std::string, std::vector<std::optional<int64_t>>>;

py::list ports_out(std::span<const PortSpec> specs) {
  py::list out;
  for (const PortSpec& spec : specs) {
    py::list shape;
    for (int64_t d : spec.shape) shape.append(d == Shape::kFree ? py::object(py::none()) : py::object(py::int_(d)));
    out.append(py::make_tuple(spec.name, std::string(dtype_name(spec.dtype)), py::tuple(shape)));
  }
  return out;
}

std::vector<PortSpec> ports_in(const std::vector<PortTuple>& ports) {
  std::vector<PortSpec> out;
  for (const auto& [name, dtype, dims] : ports) {
    const auto type = dtype_from_name(dtype);
    if (!type) throw std::invalid_argument(cat("'", dtype, "' is not a dtype that a model can have"));
    Shape shape;
    for (const auto& d : dims) shape.push_back(d.value_or(Shape::kFree));
    out.push_back({name, *type, shape});
  }
  return out;
}

ModelOptions options_from(int threads, size_t max_plans) {
  ModelOptions options;
  options.threads = threads;
  options.max_plans = max_plans;
  return options;
}

PyModel from_native(std::shared_ptr<Model> native, const InputChecks& checks) { return {native, native, checks}; }

/// model(a, b): the slot itself, since pybind11's argument handling would cost as much as a small model.
PyObject* call_slot(PyObject* self, PyObject* args, PyObject* kwargs) {
  try {
    if (kwargs && PyDict_GET_SIZE(kwargs) != 0) {
      PyErr_SetString(PyExc_TypeError, "a model takes its inputs by position; model.run({...}) takes them by name");
      return nullptr;
    }
    auto* instance = reinterpret_cast<py::detail::instance*>(self);
    const auto* model = static_cast<PyModel*>(instance->get_value_and_holder().value_ptr());
    if (!model) {
      PyErr_SetString(PyExc_TypeError, "the model is not initialised; use Model.load or Model.from_callable");
      return nullptr;
    }
    PyObject** items = reinterpret_cast<PyTupleObject*>(args)->ob_item;
    py::tuple results = call_model(*model, {items, static_cast<size_t>(PyTuple_GET_SIZE(args))}, {});
    if (PyTuple_GET_SIZE(results.ptr()) == 1) return py::object(results[0]).release().ptr();
    return results.release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (...) {
    set_exception(current_exception_status());
  }
  return nullptr;
}

py::dict run_by_name(const PyModel& model, const py::dict& feeds, const py::object& out) {
  const auto specs = model.runner->inputs();
  std::vector<PyObject*> arguments(specs.size());
  size_t known = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    arguments[i] = PyDict_GetItemString(feeds.ptr(), specs[i].name.c_str());
    if (!arguments[i]) {
      throw Error(ErrorCode::kValidation, Reason::kName, cat("input '", specs[i].name, "' is missing"));
    }
    ++known;
  }
  if (known != feeds.size()) {
    for (const auto& item : feeds) {
      const std::string name = py::str(item.first);
      bool found = false;
      for (const PortSpec& spec : specs) found |= spec.name == name;
      if (!found) throw Error(ErrorCode::kValidation, Reason::kName, cat("the model has no input '", name, "'"));
    }
  }
  const auto outputs = model.runner->outputs();
  std::vector<PyObject*> targets;
  if (!out.is_none()) {
    const auto given = py::reinterpret_borrow<py::dict>(out);
    if (!model.native)
      throw std::invalid_argument("out= needs a model that is compiled; a wrapped callable makes its own");
    for (const PortSpec& spec : outputs) targets.push_back(PyDict_GetItemString(given.ptr(), spec.name.c_str()));
    for (const auto& item : given) {
      const std::string name = py::str(item.first);
      bool found = false;
      for (const PortSpec& spec : outputs) found |= spec.name == name;
      if (!found) throw Error(ErrorCode::kValidation, Reason::kName, cat("the model has no output '", name, "'"));
    }
  }
  const py::tuple results = call_model(model, arguments, targets);
  py::dict named;
  for (size_t i = 0; i < outputs.size(); ++i) named[outputs[i].name.c_str()] = results[i];
  return named;
}

py::dict memory_of(const PyModel& model) {
  py::dict out;
  const ModelMemory memory = model.native ? model.native->memory() : ModelMemory{};
  out["file_bytes"] = memory.file_bytes;
  out["weight_bytes"] = memory.weight_bytes;
  out["packed_bytes"] = memory.packed_bytes;
  out["arena_bytes"] = memory.plans.arena_bytes;
  out["plans"] = memory.plans.plans;
  out["sessions"] = memory.plans.sessions;
  out["plan_hits"] = memory.plans.hits;
  out["plan_misses"] = memory.plans.misses;
  out["plan_evictions"] = memory.plans.evictions;
  return out;
}

}  // namespace

void bind_model(py::module_& m) {
  py::class_<InputChecks>(m, "InputChecks")
      .def(py::init([](bool finite, bool non_empty, int64_t min_length, int64_t max_length) {
             return InputChecks{finite, non_empty, min_length, max_length};
           }),
           py::kw_only(), py::arg("finite") = true, py::arg("non_empty") = true, py::arg("min_length") = 0,
           py::arg("max_length") = 0);

  py::class_<Runner, std::shared_ptr<Runner>>(m, "Runner");

  py::class_<PyModel> model(m, "Model");
  model
      .def(py::init([](const std::string& path, int threads, size_t max_plans, const InputChecks& checks) {
             const py::gil_scoped_release release;
             return from_native(Model::load(path, options_from(threads, max_plans)), checks);
           }),
           py::kw_only(), py::arg("path"), py::arg("threads"), py::arg("max_plans"), py::arg("checks"))
      .def(py::init([](const py::bytes& data, int threads, size_t max_plans, const InputChecks& checks) {
             const std::string_view view = data;
             const py::gil_scoped_release release;
             return from_native(Model::load_bytes(std::as_bytes(std::span(view)), options_from(threads, max_plans)),
                                checks);
           }),
           py::kw_only(), py::arg("data"), py::arg("threads"), py::arg("max_plans"), py::arg("checks"))
      .def(py::init([](py::object fn, const std::vector<PortTuple>& inputs, const std::vector<PortTuple>& outputs,
                       const InputChecks& checks) {
             return PyModel{make_py_runner(std::move(fn), ports_in(inputs), ports_in(outputs)), nullptr, checks};
           }),
           py::kw_only(), py::arg("callable"), py::arg("inputs"), py::arg("outputs"), py::arg("checks"))
      .def_property_readonly("_inputs", [](const PyModel& self) { return ports_out(self.runner->inputs()); })
      .def_property_readonly("_outputs", [](const PyModel& self) { return ports_out(self.runner->outputs()); })
      .def_property_readonly("_is_native", [](const PyModel& self) { return self.native != nullptr; })
      .def_property_readonly(
          "path", [](const PyModel& self) { return self.native ? self.native->path() : ""; },
          "The file that the model came from; empty where it came from none.")
      .def("_weights",
           [](const PyModel& self) -> std::shared_ptr<const Weights> {
             return self.native ? self.native->weights() : nullptr;
           })
      .def("_run", &run_by_name, py::arg("feeds"), py::arg("out") = py::none())
      .def("_memory", &memory_of)
      .def(
          "trim",
          [](const PyModel& self) {
            if (self.native) self.native->trim();
          },
          py::call_guard<py::gil_scoped_release>(), "Frees the scratch memory of plans that no run is using.");
  // The attribute for who looks it up (and for classes that derive from Model), the slot for who calls.
  model.attr("__call__") = py::cpp_function(
      [](const py::object& self, const py::args& args, const py::kwargs& kwargs) {
        PyObject* result = call_slot(self.ptr(), args.ptr(), kwargs.ptr());
        if (!result) throw py::error_already_set();
        return py::reinterpret_steal<py::object>(result);
      },
      py::name("__call__"), py::is_method(model));
  m.def(
      "install_call",
      [](const py::type& type) {
        if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type.ptr()), reinterpret_cast<PyTypeObject*>(py::type::of<PyModel>().ptr()))) {
          throw std::invalid_argument("not a subclass of Model");
        }
        reinterpret_cast<PyTypeObject*>(type.ptr())->tp_call = call_slot;
      },
      "Gives a subclass of Model, which does not override __call__, the direct call slot.");

  m.def(
      "supported_ops",
      [] {
        py::list out;
        for (const OpDef* op : OpRegistry::instance().all()) {
          if (op->schema.domain == kInternal) continue;
          out.append(py::make_tuple(std::string(op->schema.domain), std::string(op->schema.name), op->schema.since,
                                    op->schema.until, std::string(op->family)));
        }
        return out;
      },
      "The operator table: (domain, name, first opset, last opset, family) for each row.");
}

}  // namespace inferkit
