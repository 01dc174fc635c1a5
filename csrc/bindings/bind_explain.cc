// What a plan is made of and what it takes, for Model.explain() and Model.profile().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "base/counted.h"
#include "base/text.h"
#include "base/validation.h"
#include "bindings/arguments.h"
#include "bindings/dict_of.h"
#include "bindings/model_call.h"
#include "bindings/py_model.h"
#include "bindings/signal_watch.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/place.h"
#include "engine/model/explain.h"

namespace py = pybind11;
using namespace py::literals;

namespace inferkit {
namespace {

constexpr double kSeconds = 1e-9;

/// (name, dtype, shape)
py::tuple port_out(const std::string& name, DType dtype, const Shape& shape) {
  return py::make_tuple(name, std::string(dtype_name(dtype)),
                        py::tuple(py::cast(std::vector<int64_t>(shape.begin(), shape.end()))));
}

py::list values_out(const std::vector<ValueNote>& values) {
  py::list out;
  for (const ValueNote& value : values) out.append(port_out(value.name, value.dtype, value.shape));
  return out;
}

std::string_view why_name(Choice::Why why) {
  switch (why) {
    case Choice::Why::kOnly:
      return "only";
    case Choice::Why::kCheapest:
      return "cheapest";
    case Choice::Why::kPrecision:
      return "precision";
    case Choice::Why::kForced:
      return "forced";
    case Choice::Why::kNeighbours:
      return "neighbours";
    case Choice::Why::kCannotForce:
      return "cannot_force";
  }
  return "";
}

py::list origins_out(const std::vector<NodeOrigin>& origins) {
  py::list out;
  for (const NodeOrigin& origin : origins) out.append(py::make_tuple(origin.op, origin.name));
  return out;
}

/// (name, blocks, threads, shared bytes, times) of each
py::list kernels_out(const std::vector<KernelNote>& kernels) {
  py::list out;
  for (const KernelNote& note : kernels) {
    const auto& [x, y, z] = note.blocks;
    out.append(py::make_tuple(note.kernel, py::make_tuple(x, y, z), note.threads, note.shared_bytes, note.times));
  }
  return out;
}

std::string_view lowering_name(const ProfiledNode& node) {
  if (node.on_values) return "on values";
  if (node.note.lowering) return node.note.lowering->name;
  if (!node.note.to) return "copy";
  return *node.note.to == DeviceKind::kCpu ? "to the host" : "to the device";
}

py::dict node_out(const ProfiledNode& node, bool measured) {
  const NodeNote& note = node.note;
  py::list ways;
  for (const Considered& c : note.considered) {
    const bool can = c.cost.possible();
    ways.append(py::make_tuple(c.lowering->name, can ? py::object(py::float_(c.cost.nanos() * kSeconds)) : py::none(),
                               can ? py::none() : py::object(py::str(std::string(c.cost.why_not())))));
  }
  py::dict out =
      dict_of("operator"_key = note.op, "name"_key = note.name, "stands_for"_key = origins_out(note.origins),
              "considered"_key = ways, "why"_key = why_name(note.why), "inputs"_key = values_out(note.inputs),
              "outputs"_key = values_out(note.outputs), "read_bytes"_key = note.read_bytes,
              "written_bytes"_key = note.written_bytes, "scratch_bytes"_key = note.scratch_bytes,
              "kernel_calls"_key = note.steps, "estimated_seconds"_key = note.nanos * kSeconds);
  const Lowering* lowering = note.lowering;
  out["lowering"] = lowering_name(node);
  out["device"] = device_kind_name(lowering ? lowering->device : note.device);
  out["fallback"] = note.fallback;
  out["precision"] = precision_name(lowering ? lowering->precision : Precision::kAny);
  out["layout"] = layout_name(note.layout);
  out["kernels"] = kernels_out(note.kernels);
  out["within"] = node.within < 0 ? py::object(py::none()) : py::object(py::int_(node.within));
  out["times_run"] = node.times_run;
  out["measured_seconds"] =
      measured ? py::object(py::float_(static_cast<double>(node.nanos) * kSeconds)) : py::object(py::none());
  return out;
}

py::dict explained_out(const Explained& explained, const Model& model) {
  py::list steps, inputs, outputs, scaling;
  for (const Scaling& s : explained.scaling)
    scaling.append(py::make_tuple(s.threads, s.synchronizations, s.serial, s.speedup));
  for (const ProfiledNode& node : explained.nodes) steps.append(node_out(node, explained.runs > 0));
  for (size_t i = 0; i < explained.inputs.size(); ++i) {
    inputs.append(port_out(model.inputs()[i].name, explained.inputs[i].dtype, explained.inputs[i].shape));
  }
  for (const auto& [output, port] : explained.outputs) {
    outputs.append(port_out(model.outputs()[output].name, port.dtype, port.shape));
  }
  return dict_of("steps"_key = steps, "inputs"_key = inputs, "outputs"_key = outputs,
                 "waiting"_key = origins_out(explained.waiting), "complete"_key = explained.complete,
                 "threads"_key = explained.threads, "arena_bytes"_key = explained.arena_bytes,
                 "weight_bytes"_key = explained.weight_bytes,
                 "estimated_seconds"_key = explained.estimated_nanos * kSeconds, "runs"_key = explained.runs,
                 "scaling"_key = scaling,
                 "synchronization_seconds"_key = static_cast<double>(explained.synchronization) * kSeconds);
}

Model& native_of(const PyModel& model) {
  if (!model.native) throw std::invalid_argument("a wrapped callable has no plan that could be explained");
  return *model.native;
}

/// One for each input, and such as a run's inputs may have.
std::vector<Shape> checked_shapes(const Model& model, const std::vector<std::vector<Given<int64_t>>>& dimensions,
                                  std::span<const PortChecks> checks) {
  const auto specs = model.inputs();
  if (dimensions.size() != specs.size()) throw std::invalid_argument("expected one shape for each input");
  std::vector<Shape> out;
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto& dims = dimensions[i];
    if (dims.size() > Shape::kMaxRank) {
      throw std::invalid_argument(cat("input ", quote(specs[i].name), ": a shape of ",
                                      counted(dims.size(), "dimension"), "; at most ", Shape::kMaxRank,
                                      " are supported"));
    }
    const std::string what = cat("a dimension of input ", quote(specs[i].name));
    Shape& shape = out.emplace_back();
    for (const auto& d : dims) shape.push_back(integer(d, what.c_str(), 0));
    if (specs[i].is_list()) continue;
    const Shape& expected = specs[i].any_shape ? shape : specs[i].shape;
    check_input(specs[i].name, specs[i].dtype, expected, specs[i].dtype, shape, checks[i]);
  }
  return out;
}

}  // namespace

void bind_explain(py::module_& m) {
  LoweringWishes::of_process();  // what INFERKIT_LOWERING asks for and is not there shows now
  m.def(
      "explain_model",
      [](const py::object& self, const std::vector<std::vector<Given<int64_t>>>& dimensions) {
        const PyModel& bound = py_model(self);
        Model& model = native_of(bound);
        const std::vector<Shape> shapes = checked_shapes(model, dimensions, bound.checks);
        return explained_out(without_gil([&] { return model.explain(shapes); }), model);
      },
      "model"_a, "shapes"_a, "The plan for inputs of these shapes, batch axis included, as a dict.");
  m.def(
      "profile_model",
      [](const py::object& self, const std::vector<py::object>& inputs, const Given<int64_t>& runs) {
        const PyModel& bound = py_model(self);
        Model& model = native_of(bound);
        const int64_t count = integer(runs, "runs", 1, 1'000'000);
        std::vector<PyObject*> arguments;
        for (const py::object& input : inputs) arguments.push_back(input.ptr());
        return explained_out(profile_call(bound, arguments, count), model);
      },
      "model"_a, "inputs"_a, "runs"_a, "The same with how long each step took, the median of the runs.");
  m.def(
      "run_in_precision",
      [](const py::object& self, const std::vector<py::object>& inputs, const Given<bool>& rounded) {
        const PyModel& bound = py_model(self);
        if (!bound.native) throw std::invalid_argument("a wrapped callable has one precision, its own");
        const Precision own = bound.native->precision();
        const Precision precision = !flag(rounded, "rounded") ? Precision::kFloat32
                                    : rounds_operands(own)    ? own
                                                              : Precision::kBf16;
        std::vector<PyObject*> arguments;
        for (const py::object& input : inputs) arguments.push_back(input.ptr());
        const Results results = run_in_call(bound, arguments, precision);
        py::list out;
        for (const py::object& result : results.span()) out.append(result);
        return out;
      },
      "model"_a, "inputs"_a, "rounded"_a,
      "One run in float32, whatever the model computes in, or in what it rounds operands to, which is bf16 for a model "
      "in float32: its outputs.");
  m.def(
      "lowerings",
      [](const Given<bool>& cuda) {
        const DeviceKind device = flag(cuda, "cuda") ? DeviceKind::kCuda : DeviceKind::kCpu;
        py::list out;
        for (const OpDef* op : OpRegistry::instance().all()) {
          py::list names;
          for (const Lowering& lowering : op->lowerings) {
            if (lowering.device == device) names.append(lowering.name);
          }
          out.append(py::make_tuple(op->schema.domain, op->schema.name, op->schema.since, py::tuple(names)));
        }
        return out;
      },
      "cuda"_a = false,
      "The ways to run each operator on the CPU, or on CUDA, best first: (domain, name, first opset, names) for each "
      "row of its table.");
}

}  // namespace inferkit
