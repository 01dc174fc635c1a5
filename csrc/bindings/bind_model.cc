#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <filesystem>

#include "base/text.h"
#include "bindings/array_out.h"
#include "bindings/errors.h"
#include "bindings/model_call.h"
#include "bindings/path.h"
#include "bindings/py_model.h"
#include "bindings/py_runner.h"
#include "engine/op_registry.h"
#include "graph/onnx_reader.h"

namespace py = pybind11;

namespace inferkit {

namespace {

PyTypeObject* model_type = nullptr;  // set once, at import

/// The model of an object; null where it is not made yet.
PyModel* made(PyObject* object) { return py::detail::is_holder_constructed(object) ? &py_model(object) : nullptr; }

/// A callable may refer to the model that calls it (a method of an object that holds the model): the garbage collector
/// must see that arrow. Whoever else keeps the runner, a batcher, keeps this object too.
void visit_callables(PyHeapTypeObject* heap_type) {
  PyTypeObject* type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (const PyModel* model = made(self)) Py_VISIT(callable_of(*model->runner));
    return 0;
  };
  type->tp_clear = [](PyObject* self) {
    if (const PyModel* model = made(self)) drop_callable(*model->runner);
    return 0;
  };
}

}  // namespace

PyModel& py_model(py::handle object) {
  if (!PyObject_TypeCheck(object.ptr(), model_type)) {
    throw py::type_error(cat("expected an inferkit.Model, got ", Py_TYPE(object.ptr())->tp_name));
  }
  auto* instance = reinterpret_cast<py::detail::instance*>(object.ptr());
  const auto holder = instance->simple_layout
                          ? instance->get_value_and_holder()
                          : instance->get_value_and_holder(py::detail::get_type_info(typeid(PyModel)));
  // pybind11 would hand out fresh, unset memory for what __new__ alone has made.
  if (!holder.holder_constructed()) {
    throw py::type_error("the model is not initialised; use Model.load or Model.from_callable");
  }
  return *static_cast<PyModel*>(holder.value_ptr());
}

namespace {

/// Of any length and content, unlike what the functions with C strings take.
py::str name_of(const PortSpec& spec) { return py::str(spec.name); }

/// The value under the name; null where there is none.
PyObject* find(const py::dict& dict, const PortSpec& spec) {
  PyObject* value = PyDict_GetItemWithError(dict.ptr(), name_of(spec).ptr());
  if (!value && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

/// Throws where a key is none of the names.
void check_names(const py::dict& dict, std::span<const PortSpec> specs, std::string_view what) {
  for (const auto& item : dict) {
    const bool known = std::any_of(specs.begin(), specs.end(), [&](const PortSpec& s) {
      return py::isinstance<py::str>(item.first) && name_of(s).equal(item.first);
    });
    if (known) continue;
    throw Error(ErrorCode::kValidation, Reason::kName,
                cat("the model has no ", what, " ", std::string(py::repr(item.first))));
  }
}

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
    if (!type || *type == DType::kString) {
      throw std::invalid_argument(
          cat(quote(name), ": ", quote(dtype), " is not a dtype that an input or output can have"));
    }
    if (dims.size() > Shape::kMaxRank) {
      throw std::invalid_argument(
          cat(quote(name), " has ", dims.size(), " dimensions; at most ", Shape::kMaxRank, " are supported"));
    }
    Shape shape;
    for (const auto& d : dims) {
      if (d && *d < 0)
        throw std::invalid_argument(cat(quote(name), " has a dimension of ", *d, "; None marks a free one"));
      shape.push_back(d.value_or(Shape::kFree));
    }
    for (const PortSpec& other : out) {
      if (other.name == name) throw std::invalid_argument(cat("two ports have the name ", quote(name)));
    }
    out.push_back({name, *type, shape});
  }
  return out;
}

ModelOptions options_from(int threads, size_t max_plans, size_t max_run_bytes, int64_t max_iterations) {
  ModelOptions options;
  options.threads = threads;
  options.max_plans = max_plans;
  options.max_run_bytes = max_run_bytes;
  options.max_iterations = max_iterations;
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
    const PyModel& model = py_model(self);
    PyObject** items = reinterpret_cast<PyTupleObject*>(args)->ob_item;
    py::tuple results = call_model(model, {items, static_cast<size_t>(PyTuple_GET_SIZE(args))}, {});
    if (PyTuple_GET_SIZE(results.ptr()) == 1) return py::object(results[0]).release().ptr();
    return results.release().ptr();
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const py::builtin_exception& error) {
    error.set_error();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (...) {
    set_exception(current_exception_status());
  }
  return nullptr;
}

py::dict run_by_name(const py::object& self, const py::dict& feeds, const py::object& out) {
  const PyModel& model = py_model(self);
  const auto specs = model.runner->inputs();
  std::vector<PyObject*> arguments(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    arguments[i] = find(feeds, specs[i]);
    if (!arguments[i]) {
      throw Error(ErrorCode::kValidation, Reason::kName, cat("input '", specs[i].name, "' is missing"));
    }
  }
  if (specs.size() != feeds.size()) check_names(feeds, specs, "input");
  const auto outputs = model.runner->outputs();
  std::vector<PyObject*> targets;
  if (!out.is_none()) {
    const auto given = py::reinterpret_borrow<py::dict>(out);
    if (!model.native)
      throw std::invalid_argument("out= needs a model that is compiled; a wrapped callable makes its own");
    for (const PortSpec& spec : outputs) targets.push_back(find(given, spec));
    check_names(given, outputs, "output");
  }
  const py::tuple results = call_model(model, arguments, targets);
  py::dict named;
  for (size_t i = 0; i < outputs.size(); ++i) named[name_of(outputs[i])] = results[i];
  return named;
}

py::dict memory_of(const py::object& self) {
  const PyModel& model = py_model(self);
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

  py::class_<PyModel> model(m, "Model", py::custom_type_setup(visit_callables));
  model_type = reinterpret_cast<PyTypeObject*>(model.ptr());
  model
      .def(py::init([](const std::filesystem::path& path, int threads, size_t max_plans, size_t max_run_bytes,
                       int64_t max_iterations, const InputChecks& checks) {
             const py::gil_scoped_release release;
             return from_native(
                 Model::load(path.native(), options_from(threads, max_plans, max_run_bytes, max_iterations)), checks);
           }),
           py::kw_only(), py::arg("path"), py::arg("threads"), py::arg("max_plans"), py::arg("max_run_bytes"),
           py::arg("max_iterations"), py::arg("checks"))
      .def(py::init([](const py::bytes& data, int threads, size_t max_plans, size_t max_run_bytes,
                       int64_t max_iterations, const InputChecks& checks) {
             const std::string_view view = data;
             const py::gil_scoped_release release;
             return from_native(Model::load_bytes(std::as_bytes(std::span(view)),
                                                  options_from(threads, max_plans, max_run_bytes, max_iterations)),
                                checks);
           }),
           py::kw_only(), py::arg("data"), py::arg("threads"), py::arg("max_plans"), py::arg("max_run_bytes"),
           py::arg("max_iterations"), py::arg("checks"))
      .def(py::init([](py::object fn, const std::vector<PortTuple>& inputs, const std::vector<PortTuple>& outputs,
                       const InputChecks& checks) {
             return PyModel{make_py_runner(std::move(fn), ports_in(inputs), ports_in(outputs)), nullptr, checks};
           }),
           py::kw_only(), py::arg("callable"), py::arg("inputs"), py::arg("outputs"), py::arg("checks"))
      .def_property_readonly("_inputs",
                             [](const py::object& self) { return ports_out(py_model(self).runner->inputs()); })
      .def_property_readonly("_outputs",
                             [](const py::object& self) { return ports_out(py_model(self).runner->outputs()); })
      .def_property_readonly("_is_native", [](const py::object& self) { return py_model(self).native != nullptr; })
      .def_property_readonly(
          "path",
          [](const py::object& self) {
            const PyModel& of = py_model(self);
            return file_name(of.native ? of.native->path() : "");
          },
          "The file that the model came from; empty where it came from none.")
      .def("_weights",
           [](const py::object& self) -> std::shared_ptr<const Weights> {
             const PyModel& of = py_model(self);
             return of.native ? of.native->weights() : nullptr;
           })
      .def("_run", &run_by_name, py::arg("feeds"), py::arg("out") = py::none())
      .def("_memory", &memory_of)
      .def(
          "trim",
          [](const py::object& self) {
            const std::shared_ptr<Model> native = py_model(self).native;
            const py::gil_scoped_release release;
            if (native) native->trim();
          },
          "Frees the scratch memory of plans that no run is using.");
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
        if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type.ptr()), model_type)) {
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
