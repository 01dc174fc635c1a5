#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <optional>

#include "base/counted.h"
#include "base/text.h"
#include "bindings/arguments.h"
#include "bindings/array_out.h"
#include "bindings/bound.h"
#include "bindings/errors.h"
#include "bindings/model_call.h"
#include "bindings/names.h"
#include "bindings/path.h"
#include "bindings/py_model.h"
#include "bindings/py_runner.h"
#include "bindings/request_io.h"
#include "bindings/signal_watch.h"
#include "device/cuda/cuda.h"
#include "engine/compile/op_registry.h"
#include "graph/onnx_reader.h"

namespace py = pybind11;

namespace inferkit {

namespace {

/// A callable may refer to the model that calls it (a method of an object that holds the model): the garbage collector
/// must see that arrow. Whoever else keeps the runner, a batcher, keeps this object too.
void visit_callables(PyHeapTypeObject* heap_type) {
  with_new(heap_type);
  PyTypeObject* type = &heap_type->ht_type;
  type->tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    if (const auto* model = bound_or_null<PyModel>(self)) Py_VISIT(callable_of(*model->runner));
    return 0;
  };
  type->tp_clear = [](PyObject* self) {
    if (const auto* model = bound_or_null<PyModel>(self)) drop_callable(*model->runner);
    return 0;
  };
}

py::list ports_out(std::span<const PortSpec> specs) {
  py::list out;
  for (const PortSpec& spec : specs) {
    py::list shape;
    for (int64_t d : spec.shape) shape.append(d == Shape::kFree ? py::object(py::none()) : py::object(py::int_(d)));
    out.append(py::make_tuple(spec.name, std::string(dtype_name(spec.dtype)), py::tuple(shape), spec.sequence,
                              spec.optional, spec.any_shape, spec.shared));
  }
  return out;
}

/// (name, dtype, shape), the items of which are what a caller gave.
using GivenPort = std::tuple<Given<std::string>, Given<std::string>, std::vector<Given<std::optional<int64_t>>>>;

PortSpec port_in(const GivenPort& port, const char* kind) {
  const auto& [name, given_dtype, dims] = port;
  PortSpec out;
  out.name = text(name, cat("the name of an ", kind).c_str());
  const std::string what = cat(kind, " ", quote(out.name));
  const std::string dtype = text(given_dtype, cat("the dtype of ", what).c_str());
  const auto type = dtype_from_name(dtype);
  if (!type) {
    throw std::invalid_argument(cat(what, ": ", quote(dtype), " is not a dtype that an input or output can have"));
  }
  out.dtype = *type;
  if (dims.size() > Shape::kMaxRank) {
    throw std::invalid_argument(
        cat(what, " has ", counted(dims.size(), "dimension"), "; at most ", Shape::kMaxRank, " are supported"));
  }
  const std::string of = cat("a dimension of ", what, " (None marks a free one)");
  for (const auto& d : dims) out.shape.push_back(integer_or(Shape::kFree, d, of.c_str(), 0));
  return out;
}

std::vector<PortSpec> ports_in(const std::vector<GivenPort>& ports, const char* kind) {
  std::vector<PortSpec> out;
  for (const GivenPort& port : ports) {
    PortSpec spec = port_in(port, kind);
    for (const PortSpec& other : out) {
      if (other.name == spec.name) throw std::invalid_argument(cat("two ports have the name ", quote(spec.name)));
    }
    out.push_back(std::move(spec));
  }
  return out;
}

using Count = Given<int64_t>;
using MaybeCount = Given<std::optional<int64_t>>;

ModelOptions options_from(const MaybeCount& threads, const Count& max_plans, const MaybeCount& max_run_bytes,
                          const Count& max_iterations, std::vector<std::string> outputs, bool map = false) {
  ModelOptions options;
  options.outputs = std::move(outputs);
  options.placement = map ? Placement::kMapped : Placement::kCopied;
  options.threads = static_cast<int>(integer_or(0, threads, "threads", 0, std::numeric_limits<int>::max()));
  options.max_plans = static_cast<size_t>(integer(max_plans, "max_plans", 1));
  options.max_run_bytes = static_cast<size_t>(integer_or(0, max_run_bytes, "max_run_bytes", 1));
  options.max_iterations = integer(max_iterations, "max_iterations", 1);
  return options;
}

/// "cpu", "cuda" or "cuda:N": the number of a CUDA device, or -1 for the CPU.
int device_number(const Given<std::string>& given) {
  const std::string name = text(given, "device");
  if (name == "cpu") return -1;
  constexpr std::string_view kCuda = "cuda", kMost = "9999";
  std::string_view number = name;
  if (number == kCuda) return 0;
  if (number.starts_with(kCuda) && number.size() > kCuda.size() + 1 && number[kCuda.size()] == ':') {
    number.remove_prefix(kCuda.size() + 1);
    const bool digits = number.find_first_not_of("0123456789") == std::string_view::npos;
    if (digits && number.size() <= kMost.size()) return std::stoi(std::string(number));
  }
  throw std::invalid_argument(cat("device must be \"cpu\", \"cuda\" or \"cuda:\" and a number, got ", quote(name)));
}
/// Whether the CPU is to run what the device has no lowering for.
bool falls_back(const Given<std::optional<std::string>>& given) {
  if (given.is_none()) return false;
  const std::string name = text(given, "fallback");
  if (name != "cpu") throw std::invalid_argument(cat("fallback must be \"cpu\" or None, got ", quote(name)));
  return true;
}
/// Opens the driver, where it is for one: call it without the GIL.
void set_device(ModelOptions& options, int number, bool fallback) {
  if (number < 0) {
    if (options.precision == Precision::kFloat16) {
      throw std::invalid_argument(
          "precision=\"float16\" is for models on CUDA: take \"bf16\" or leave it out, or give device=\"cuda\"");
    }
    return;
  }
  if (!options.packed_file.empty() || !options.packed_cache.empty()) {
    throw std::invalid_argument(
        "packed and packed_cache are for models on the CPU: leave them out, or leave out device");
  }
  options.device = &cuda_device(number);
  options.fallback = fallback;
}

Precision precision_in(const Given<std::string>& given) {
  const std::string name = text(given, "precision");
  for (const Precision precision : {Precision::kFloat32, Precision::kBf16, Precision::kFloat16}) {
    if (name == precision_name(precision)) return precision;
  }
  throw std::invalid_argument(cat("precision must be \"float32\", \"bf16\" or \"float16\", got ", quote(name)));
}

/// None for what is not given.
void set_packed(ModelOptions& options, const PathLike& packed, const PathLike& packed_cache) {
  const auto path_in = [](const PathLike& given, const char* name) {
    std::string path = given.is_none() ? std::string() : file_path(given, name);
    if (!given.is_none() && path.empty()) throw std::invalid_argument(cat(name, " must not be an empty path"));
    return path;
  };
  options.packed_file = path_in(packed, "packed");
  options.packed_cache = path_in(packed_cache, "packed_cache");
}

PyModel from_native(const std::shared_ptr<Model>& native) { return make_py_model(native, native); }

/// True, False, or None for what the model says.
CheckMode check_mode(const Given<std::optional<bool>>& value, const char* name) {
  if (value.is_none()) return CheckMode::kByModel;
  return flag(value, name) ? CheckMode::kOn : CheckMode::kOff;
}

/// For each input, what the model gives a meaning to: "nan", "-inf" or "", and the axes that may be empty.
py::list senses_of(const py::object& self) {
  const PyModel& model = py_model(self);
  const auto senses = model.runner->senses();
  py::list out;
  for (size_t i = 0; i < model.runner->inputs().size(); ++i) {
    const InputSense sense = i < senses.size() ? senses[i] : InputSense{};
    py::list axes;
    for (size_t axis = 0; axis < Shape::kMaxRank; ++axis) {
      if (sense.empty_axes >> axis & 1) axes.append(py::int_(axis));
    }
    static constexpr const char* kNames[] = {"", "nan", "-inf", "+inf", "inf", "all"};  // as NonFinite has them
    out.append(py::make_tuple(kNames[static_cast<size_t>(sense.non_finite)], py::tuple(axes)));
  }
  return out;
}

/// The model that takes what is given: another one where that has inputs which the file gives a default for.
std::optional<PyModel> with_given(const PyModel& model, const py::dict& feeds) {
  if (!model.native || model.native->defaults().empty()) return {};
  const auto inputs = model.runner->inputs();
  const bool all = std::ranges::all_of(inputs, [](const PortSpec& in) { return !in.fallback; });
  if (all && feeds.size() <= inputs.size()) return {};
  std::vector<std::string> names;
  std::vector<InputChecks> asked = model.asked, asked_defaults;
  const auto defaults = model.native->defaults();
  for (size_t i = 0; i < defaults.size(); ++i) {
    if (find_named(feeds, defaults[i])) {
      names.push_back(defaults[i].name);
      asked.push_back(model.asked_defaults[i]);
    } else {
      asked_defaults.push_back(model.asked_defaults[i]);
    }
  }
  if (names.empty()) return {};
  PyModel out = from_native(without_gil([&] { return model.native->with_inputs(names); }));
  set_checks(out, std::move(asked), std::move(asked_defaults));
  return out;
}

py::dict run_by_name(const py::object& self, const py::dict& feeds,
                     const std::optional<py::typing::Dict<py::str, py::object>>& out) {
  const std::optional<PyModel> other = with_given(py_model(self), feeds);
  const PyModel& model = other ? *other : py_model(self);
  const auto specs = model.runner->inputs();
  std::vector<py::object> keep;
  std::vector<PyObject*> arguments, targets;
  size_t given = 0;
  for (const PortSpec& spec : specs) {
    keep.push_back(find_named(feeds, spec));
    given += static_cast<bool>(keep.back());
    if (!keep.back() && spec.fallback) keep.back() = fallback_array(*spec.fallback);
    arguments.push_back(keep.back().ptr());
    if (!arguments.back()) {
      throw Error(ErrorCode::kValidation, Reason::kName,
                  cat("input '", spec.name, "' is missing; the model takes ", names_of(specs)));
    }
  }
  refuse_other_names(feeds, specs, given, "input");
  const auto outputs = model.runner->outputs();
  if (out) {
    if (!model.native)
      throw std::invalid_argument("out= works with compiled models only: a wrapped callable returns arrays of its own");
    size_t found = 0;
    for (const PortSpec& spec : outputs) {
      keep.push_back(find_named(*out, spec));
      targets.push_back(keep.back().ptr());
      found += targets.back() != nullptr;
    }
    refuse_other_names(*out, outputs, found, "output");
  }
  Results results = call_model(model, arguments, targets);
  return pack_results(results.span(), outputs, true);
}

py::dict memory_of(const py::object& self) {
  const PyModel& model = py_model(self);
  py::dict out;
  const ModelMemory memory = model.native ? model.native->memory() : ModelMemory{};
  out["file_bytes"] = memory.file_bytes;
  out["weight_bytes"] = memory.mapped_bytes + memory.copied_bytes;
  out["mapped_bytes"] = memory.mapped_bytes;
  out["copied_bytes"] = memory.copied_bytes;
  out["misaligned_bytes"] = memory.misaligned_bytes;
  out["packed_bytes"] = memory.packed_bytes;
  out["packed_shared_bytes"] = memory.packed_shared_bytes;
  out["arena_bytes"] = memory.plans.arena_bytes;
  out["plans"] = memory.plans.plans;
  out["sessions"] = memory.plans.sessions;
  out["plan_hits"] = memory.plans.hits;
  out["plan_misses"] = memory.plans.misses;
  out["plan_evictions"] = memory.plans.evictions;
  return out;
}

PyMethodDef model_call_def = {"__call__", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_model_slot)),
                              METH_VARARGS | METH_KEYWORDS,
                              R"(__call__(self: inferkit._core.Model, *inputs: typing.Any) -> typing.Any

Run the model on a batch, or on a single row.

Parameters
----------
*inputs : array
    One array for each input of the model, in order. Either all of them have the batch axis, or none has it; then they
    are a single row, and the outputs have no batch axis either. Inputs for all rows (``TensorSpec.shared``, and those
    without dimensions) never have it. Where the file fixes the first dimension at another number than 1, it takes no
    single row.

Returns
-------
numpy.ndarray or tuple of numpy.ndarray
    One array if the model has one output, otherwise a tuple of arrays, in order. They belong to the caller.

Raises
------
ValidationError
    An input does not fit, or fails its checks; ``.reason`` says how.
InferenceError
    The run failed.
)"};

/// What the file says of itself; all empty for a callable.
py::dict metadata_of(const py::object& self) {
  const PyModel& model = py_model(self);
  static const ModelFile none;
  const ModelFile& file = model.native ? model.native->file() : none;
  py::dict out;
  out["producer"] = file.producer;
  out["version"] = file.version;
  out["ir_version"] = file.ir_version;
  out["opsets"] = file.opsets;
  out["entries"] = file.metadata;
  return out;
}

}  // namespace

void bind_model(py::module_& m) {
  py::class_<InputChecks>(m, "InputChecks", py::custom_type_setup(with_new))
      .def(py::init([](const Given<std::optional<bool>>& finite, const Given<std::optional<bool>>& non_empty,
                       const Count& min_length, const Count& max_length) {
             return InputChecks{check_mode(finite, "finite"), check_mode(non_empty, "non_empty"),
                                integer(min_length, "min_length", 0), integer(max_length, "max_length", 0)};
           }),
           py::kw_only(), py::arg("finite") = py::none(), py::arg("non_empty") = py::none(), py::arg("min_length") = 0,
           py::arg("max_length") = 0);

  py::class_<Runner, std::shared_ptr<Runner>>(m, "Runner", py::custom_type_setup(without_new));

  py::class_<PyModel> model(m, "Model", py::custom_type_setup(visit_callables));
  set_model_type(reinterpret_cast<PyTypeObject*>(model.ptr()));
  model
      .def(py::init([](const PathLike& path, const MaybeCount& threads, const Count& max_plans,
                       const MaybeCount& max_run_bytes, const Count& max_iterations, std::vector<std::string> outputs,
                       const Given<bool>& mmap, const PathLike& packed, const PathLike& packed_cache,
                       const Given<std::string>& device, const Given<std::optional<std::string>>& fallback,
                       const Given<std::string>& precision) {
             const std::string file = file_path(path, "model");
             ModelOptions options = options_from(threads, max_plans, max_run_bytes, max_iterations, std::move(outputs),
                                                 flag(mmap, "mmap"));
             set_packed(options, packed, packed_cache);
             options.precision = precision_in(precision);
             const int number = device_number(device);
             const bool falls = falls_back(fallback);
             return without_gil([&] {
               set_device(options, number, falls);
               return from_native(Model::load(file, options));
             });
           }),
           py::kw_only(), py::arg("path"), py::arg("threads"), py::arg("max_plans"), py::arg("max_run_bytes"),
           py::arg("max_iterations"), py::arg("outputs"), py::arg("mmap"), py::arg("packed"), py::arg("packed_cache"),
           py::arg("device"), py::arg("fallback"), py::arg("precision"))
      .def(py::init([](const py::bytes& data, const MaybeCount& threads, const Count& max_plans,
                       const MaybeCount& max_run_bytes, const Count& max_iterations, std::vector<std::string> outputs,
                       const PathLike& packed, const PathLike& packed_cache, const Given<std::string>& device,
                       const Given<std::optional<std::string>>& fallback, const Given<std::string>& precision) {
             ModelOptions options = options_from(threads, max_plans, max_run_bytes, max_iterations, std::move(outputs));
             set_packed(options, packed, packed_cache);
             options.precision = precision_in(precision);
             const int number = device_number(device);
             const bool falls = falls_back(fallback);
             const std::string_view view = data;
             return without_gil([&] {
               set_device(options, number, falls);
               return from_native(Model::load_bytes(std::as_bytes(std::span(view)), options));
             });
           }),
           py::kw_only(), py::arg("data"), py::arg("threads"), py::arg("max_plans"), py::arg("max_run_bytes"),
           py::arg("max_iterations"), py::arg("outputs"), py::arg("packed"), py::arg("packed_cache"), py::arg("device"),
           py::arg("fallback"), py::arg("precision"))
      .def(py::init([](py::object fn, const std::vector<GivenPort>& inputs, const std::vector<GivenPort>& outputs) {
             return make_py_model(make_py_runner(std::move(fn), ports_in(inputs, "input"), ports_in(outputs, "output")),
                                  nullptr);
           }),
           py::kw_only(), py::arg("callable"), py::arg("inputs"), py::arg("outputs"))
      .def(py::init([](const py::object& of, const std::vector<std::string>& names) {
             const std::shared_ptr<Model> native = py_model(of).native;
             if (!native) throw std::invalid_argument("a wrapped callable has no inputs with defaults");
             return from_native(without_gil([&] { return native->with_inputs(names); }));
           }),
           py::kw_only(), py::arg("of"), py::arg("names"))
      .def_property_readonly("_inputs",
                             [](const py::object& self) { return ports_out(py_model(self).runner->inputs()); })
      .def_property_readonly("_defaults",
                             [](const py::object& self) {
                               const PyModel& of = py_model(self);
                               return ports_out(of.native ? of.native->defaults() : std::span<const PortSpec>());
                             })
      .def_property_readonly("_outputs",
                             [](const py::object& self) { return ports_out(py_model(self).runner->outputs()); })
      .def_property_readonly("_senses", &senses_of)
      .def_property_readonly("_threads", [](const py::object& self) { return py_model(self).runner->threads(); })
      .def_property_readonly("_mixing_node",
                             [](const py::object& self) {
                               const PyModel& of = py_model(self);
                               return of.native ? of.native->mixing_node() : std::string();
                             })
      .def(
          "_set_checks",
          [](const py::object& self, const Given<std::vector<InputChecks>>& inputs,
             const Given<std::vector<InputChecks>>& defaults) {
            PyModel& of = py_model(self);  // which may not be initialised: first of all
            set_checks(of, inputs.cast<std::vector<InputChecks>>(), defaults.cast<std::vector<InputChecks>>());
          },
          py::arg("inputs"), py::arg("defaults"))
      .def_property_readonly(
          "precision",
          [](const py::object& self) {
            const PyModel& of = py_model(self);
            return of.native ? std::string(precision_name(of.native->precision())) : std::string();
          },
          "What the model computes in, as load() was told: \"float32\", \"bf16\" or \"float16\"; empty for a "
          "wrapped callable.")
      .def_property_readonly("_is_native", [](const py::object& self) { return py_model(self).native != nullptr; })
      .def_property_readonly(
          "path",
          [](const py::object& self) {
            const PyModel& of = py_model(self);
            return file_name(of.native ? of.native->path() : "");
          },
          "The path of the model's file; empty if it was not loaded from a path.")
      .def("_weights",
           [](const py::object& self) -> std::shared_ptr<const Weights> {
             const std::shared_ptr<Model> native = py_model(self).native;
             if (!native) return nullptr;
             return without_gil([&] { return native->weights(); });  // which may copy some
           })
      .def("_run", &run_by_name, py::arg("feeds"), py::arg("out") = py::none())
      .def("_memory", &memory_of)
      .def("_longest_call",
           [](const py::object& self) -> std::optional<std::pair<unsigned long, uint64_t>> {
             const auto call = longest_call(*py_model(self).runner);
             return call ? std::optional(std::pair(call->thread, call->number)) : std::nullopt;
           })
      .def(
          "_save_packed",
          [](const py::object& self, const PathLike& path) {
            const std::shared_ptr<Model> native = py_model(self).native;
            const std::string file = file_path(path, "path");
            if (!native) throw std::invalid_argument("a wrapped callable has no packed weights to save");
            without_gil([&] {
              native->save_packed(file);
              return true;
            });
          },
          py::arg("path"))
      .def("_packed_use",
           [](const py::object& self) {
             const std::shared_ptr<Model> native = py_model(self).native;
             const PackedUse use = native ? native->packed_use() : PackedUse{};
             return py::make_tuple(file_name(use.file), use.why);
           })
      .def("_metadata", &metadata_of)
      .def(
          "trim",
          [](const py::object& self) {
            const std::shared_ptr<Model> native = py_model(self).native;
            const py::gil_scoped_release release;
            if (native) native->trim();
          },
          "Free the working memory of plans that no run is using.");
  require_init<InputChecks>();
  require_init<Runner>();
  require_init<PyModel>();
  // The attribute for who looks it up (and for classes that derive from Model), the slot for who calls.
  const auto call = py::reinterpret_steal<py::object>(
      PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(model.ptr()), &model_call_def));
  if (!call) throw py::error_already_set();
  model.attr("__call__") = call;
  m.def(
      "install_call",
      [](const py::type& type) {
        if (!PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(type.ptr()), model_type())) {
          throw std::invalid_argument("not a subclass of Model");
        }
        reinterpret_cast<PyTypeObject*>(type.ptr())->tp_call = call_model_slot;
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
  m.def("wait_for_call", &wait_for_call,
        "Sleep until a callable's call runs, or return at once where one has begun since the last time.");
}

}  // namespace inferkit
