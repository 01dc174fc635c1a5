// What an ONNX file says of itself, read without making a model of it: so it also tells of models that cannot be run.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "bindings/dict_of.h"
#include "bindings/path.h"
#include "bindings/signal_watch.h"
#include "engine/compile/compile.h"
#include "engine/model/model.h"
#include "graph/onnx_reader.h"

namespace py = pybind11;
using namespace py::literals;

namespace inferkit {
namespace {

struct Census {
  std::map<std::pair<std::string, std::string>, int> operators;  // (domain, name) -> nodes, subgraphs included
  std::map<std::string, std::pair<size_t, size_t>> constants;    // dtype -> elements, bytes
  size_t nodes = 0, initializers = 0;

  void add(const Tensor& tensor) {
    auto& [elements, bytes] = constants[std::string(dtype_name(tensor.dtype))];
    elements += static_cast<size_t>(tensor.shape.elements());
    bytes += tensor.bytes();
    ++initializers;
  }
  void add(const Graph& graph) {
    for (const auto& [id, tensor] : graph.constants) add(tensor);
    for (const Node& node : graph.nodes) {
      ++nodes;
      ++operators[{node.domain, node.op_type}];
      for (const auto& [name, value] : node.attributes) {
        if (const auto* tensor = std::get_if<Tensor>(&value)) add(*tensor);
        if (const auto* body = std::get_if<std::shared_ptr<Graph>>(&value)) add(**body);
      }
    }
  }
};

py::object shape_out(const std::optional<Shape>& shape) {
  if (!shape) return py::none();
  py::list out;
  for (int64_t d : *shape) out.append(d == Shape::kFree ? py::object(py::none()) : py::object(py::int_(d)));
  return py::tuple(out);
}

std::unordered_map<ValueId, const Node*> makers_of(const Graph& graph) {
  std::unordered_map<ValueId, const Node*> makers;
  for (const Node& node : graph.nodes) {
    for (ValueId id : node.outputs) makers[id] = &node;
  }
  return makers;
}

/// Output -> its columns' keys, where a ZipMap makes it: maps for others, an array for us.
py::dict columns_out(const Graph& graph) {
  const auto makers = makers_of(graph);
  py::dict out;
  for (ValueId id : graph.outputs) {
    const auto maker = makers.find(id);
    if (maker == makers.end() || maker->second->op_type != "ZipMap") continue;
    py::list keys;
    for (const auto& [name, value] : maker->second->attributes) {
      if (const auto* ints = std::get_if<std::vector<int64_t>>(&value)) {
        for (int64_t key : *ints) keys.append(key);
      } else if (const auto* strings = std::get_if<std::vector<std::string>>(&value)) {
        for (const std::string& key : *strings) keys.append(py::bytes(key).attr("decode")("utf-8", "replace"));
      }
    }
    out[py::str(graph.values[static_cast<size_t>(id)].name)] = keys;
  }
  return out;
}

/// (name, dtype or None, shape or None, the operator that makes it or "")
py::list ports_out(const Graph& graph, const std::vector<ValueId>& ids) {
  const auto makers = makers_of(graph);
  py::list out;
  for (ValueId id : ids) {
    const Value& value = graph.values[static_cast<size_t>(id)];
    const auto maker = makers.find(id);
    out.append(py::make_tuple(value.name,
                              value.dtype ? py::object(py::str(std::string(dtype_name(*value.dtype)))) : py::none(),
                              shape_out(value.shape), maker == makers.end() ? "" : maker->second->op_type));
  }
  return out;
}

py::dict report(const ModelFile& file) {
  Census census;
  census.add(file.graph);
  py::list operators;
  for (const auto& [what, count] : census.operators) operators.append(py::make_tuple(what.first, what.second, count));
  py::dict constants;
  for (const auto& [dtype, sizes] : census.constants) {
    constants[py::str(dtype)] = py::make_tuple(sizes.first, sizes.second);
  }
  return dict_of("inputs"_key = ports_out(file.graph, file.graph.inputs),
                 "outputs"_key = ports_out(file.graph, file.graph.outputs), "operators"_key = operators,
                 "columns"_key = columns_out(file.graph), "nodes"_key = census.nodes, "constants"_key = constants,
                 "initializers"_key = census.initializers, "opsets"_key = file.opsets,
                 "ir_version"_key = file.ir_version, "producer"_key = file.producer, "metadata"_key = file.metadata,
                 "file_bytes"_key = file.file_bytes, "missing"_key = missing_operators(file.graph));
}

}  // namespace

void bind_inspect(py::module_& m) {
  m.def(
      "inspect_onnx",
      [](const PathLike& path) {
        const std::string file = file_path(path, "path");
        return report(without_gil([&] { return read_onnx(file); }));
      },
      "path"_a, "What an ONNX file holds, as a dict; raises as loading does where it cannot be read.");
  m.def(
      "lacking_on_cuda",
      [](const PathLike& path) {
        const std::string file = file_path(path, "path");
        ModelOptions options;
        options.lacking = std::make_shared<Lacking>(DeviceKind::kCuda);
        without_gil([&] { return Model::load(file, options); });
        py::typing::List<py::typing::Tuple<py::str, py::str, py::str>> out;
        for (const Lacking::Lack& lack : options.lacking->lacks()) {
          out.append(py::make_tuple(lack.op, lack.name, lack.why));
        }
        return py::make_tuple(options.lacking->nodes(), out);
      },
      "path"_a,
      "How many nodes of a model CUDA was asked about, with no device at hand, and those that it has no lowering for: "
      "(operator, name, why). Raises as loading does.");
}

}  // namespace inferkit
