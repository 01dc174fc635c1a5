#include "graph/onnx_graph.h"

#include <limits>
#include <set>

#include "base/text.h"
#include "graph/topological_sort.h"
#include "platform/run_control.h"
#include "platform/stoppable.h"

namespace inferkit::onnx {
namespace {

/// Advice: what the file declares but inferkit cannot hold is left open.
void declare(Value& value, const ValueInfoProto& info) {
  if (info.sequence || info.optional) {
    ListType& list = value.list.emplace(ListType{info.sequence, info.optional, dtype_of(info.elem_type), std::nullopt});
    if (info.has_shape && info.dims.size() <= Shape::kMaxRank) list.shape = Shape(info.dims);
    return;
  }
  if (!info.is_tensor) return;
  value.dtype = dtype_of(info.elem_type);
  if (info.has_shape && info.dims.size() <= Shape::kMaxRank) value.shape = Shape(info.dims);
}

/// What comes from outside must be a tensor that inferkit can take.
void check_input(const ValueInfoProto& info) {
  const std::string what = cat("the graph input ", quote(info.name));
  const auto unsupported = [&](const std::string& why) { throw Error(ErrorCode::kUnsupportedOp, cat(what, " ", why)); };
  if (!info.is_tensor && !info.sequence && !info.optional)
    unsupported(
        "is not a dense tensor, nor a sequence or an optional of such (a map, a sparse tensor, a sequence of "
        "sequences)");
  if (info.elem_type == 0) fail(cat(what, " has no element type"));
  if (!dtype_of(info.elem_type))
    unsupported(cat("has elements of ", dtype_text(info.elem_type), ", which inferkit does not support"));
  if (info.dims.size() > Shape::kMaxRank) unsupported(cat("has more than ", Shape::kMaxRank, " dimensions"));
}

}  // namespace

std::string describe(const NodeProto& node) {
  const std::string type = node.domain.empty() ? std::string(node.op_type) : cat(node.domain, ".", node.op_type);
  if (!node.name.empty()) return cat("node ", quote(node.name), " (", type, ")");
  const auto named = std::ranges::find_if(node.outputs, [](std::string_view output) { return !output.empty(); });
  return cat("a node (", type, ")", named == node.outputs.end() ? "" : cat(" that computes ", quote(*named)));
}

void Limits::take(size_t& left, size_t n, const char* what) {
  if (n > left) fail(cat("the model has too many ", what, " for a file of its size"));
  left -= n;
}

GraphReader::GraphReader(const ModelProto& model, TensorLoader& tensors, size_t file_bytes)
    : model_(model), tensors_(tensors), limits_(file_bytes), opsets_(read_opsets(model.opset_import)) {
  // Before IR version 3 there were no imports: opset 1 was the only one.
  if (opsets_.empty() && model.ir_version.value_or(0) < 3) opsets_[""] = 1;
  read_functions(model.functions);
}

GraphReader::Opsets GraphReader::read_opsets(const std::vector<OpsetId>& imports) {
  Opsets out;
  for (const OpsetId& id : imports) {
    if (id.version < 1 || id.version > std::numeric_limits<int>::max())
      fail(cat("the opset version ", id.version, " of domain ", quote(id.domain), " is impossible"));
    const auto [it, fresh] = out.emplace(id.domain, static_cast<int>(id.version));
    if (!fresh && it->second != id.version)
      fail(cat("the domain ", quote(id.domain), " is imported with opset ", it->second, " and with ", id.version));
  }
  return out;
}

std::vector<NodeProto> GraphReader::parse_nodes(const std::vector<Bytes>& messages) {
  limits_.nodes(messages.size());
  std::vector<NodeProto> out;
  out.reserve(messages.size());
  for (const Bytes message : stoppable(messages)) {
    const NodeProto& node = out.emplace_back(parse_node(message));
    limits_.edges(node.inputs.size() + node.outputs.size());
    limits_.attributes(node.attributes.size());
  }
  return out;
}

Graph GraphReader::read_main() { return read_graph(*model_.graph, nullptr, nullptr, 0); }

void GraphReader::check_depth(int depth, const NodeProto& node) const {
  if (depth > Limits::kMaxDepth)
    fail(cat(describe(node), ": subgraphs and functions nest deeper than ", Limits::kMaxDepth,
             " (or a function calls itself)"));
}

Graph GraphReader::read_graph(Bytes message, Scope* parent, const Frame* frame, int depth) {
  const GraphProto proto = parse_graph(message);
  if (frame) limits_.inlined_nodes(proto.nodes.size());
  Graph graph;
  graph.name = proto.name;
  Scope scope{graph, parent, frame, depth, {}};
  read_inputs(proto, scope);
  read_initializers(proto, scope);
  const std::vector<NodeProto> nodes = parse_nodes(proto.nodes);
  // All names first: the file may list nodes in any order.
  for (const NodeProto& node : stoppable(nodes)) define_outputs(node, scope);
  read_value_infos(proto, scope);
  graph.nodes.reserve(nodes.size());
  for (const NodeProto& node : nodes) {
    RunControl::check();
    emit(node, scope);
  }
  read_outputs(proto, scope);
  sort_topologically(graph);
  return graph;
}

template <class By>
ValueId GraphReader::define(Scope& scope, std::string_view name, By&& by) {
  if (name.empty()) fail(cat("a value defined ", by(), " has no name"));
  if (scope.names.contains(name)) fail(cat("the value ", quote(name), " is defined twice, the second time ", by()));
  const ValueId id = add_value(scope, name);
  scope.names.emplace(name, id);
  return id;
}

void GraphReader::read_inputs(const GraphProto& proto, Scope& scope) {
  for (const Bytes message : stoppable(proto.inputs)) {
    const ValueInfoProto info = parse_value_info(message);
    const ValueId id = define(scope, info.name, [] { return "as a graph input"; });
    declare(scope.graph.values[static_cast<size_t>(id)], info);
    scope.graph.inputs.push_back(id);
  }
}

void GraphReader::read_initializers(const GraphProto& proto, Scope& scope) {
  const size_t input_values = scope.graph.values.size();  // the inputs are the first values
  std::vector<bool> is_constant(input_values);
  const auto add = [&](std::string_view name, const std::string& what, const auto& load) {
    RunControl::check();
    const auto it = scope.names.find(name);
    ValueId id = kNoValue;
    if (it != scope.names.end() && static_cast<size_t>(it->second) < input_values &&
        !is_constant[static_cast<size_t>(it->second)]) {
      if (scope.parent) fail(cat(what, " gives a default to an input of a subgraph"));
      id = it->second;
      is_constant[static_cast<size_t>(id)] = true;
    } else {
      id = define(scope, name, [] { return "as an initializer"; });
    }
    Tensor constant = load();
    Value& value = scope.graph.values[static_cast<size_t>(id)];
    value.dtype = constant.dtype;
    value.shape = constant.shape;
    scope.graph.constants.emplace(id, std::move(constant));
  };
  for (const Bytes message : proto.initializers) {
    const std::string_view name = parse_tensor(message).name;
    const std::string what = cat("initializer ", quote(name));
    add(name, what, [&] { return tensors_.load(message, what); });
  }
  for (const Bytes message : proto.sparse_initializers) {
    const SparseTensorProto sparse = parse_sparse_tensor(message);
    const std::string_view name = sparse.values ? parse_tensor(*sparse.values).name : std::string_view();
    const std::string what = cat("sparse initializer ", quote(name));
    add(name, what, [&] { return tensors_.load_sparse(sparse, what); });
  }
  if (!scope.parent && !scope.frame) {
    for (const Bytes message : stoppable(proto.inputs)) {
      const ValueInfoProto info = parse_value_info(message);
      const ValueId id = scope.names.at(info.name);
      if (!is_constant[static_cast<size_t>(id)]) continue;
      DefaultInput& input = defaults_.emplace_back(DefaultInput{id, {}});
      input.declared.name = scope.graph.values[static_cast<size_t>(id)].name;
      declare(input.declared, info);
    }
  }
  std::erase_if(scope.graph.inputs, [&](ValueId id) { return is_constant[static_cast<size_t>(id)]; });
  if (scope.parent) return;
  for (const Bytes message : stoppable(proto.inputs)) {
    const ValueInfoProto info = parse_value_info(message);
    if (!scope.graph.constants.contains(scope.names.at(info.name))) check_input(info);
  }
}

void GraphReader::read_value_infos(const GraphProto& proto, Scope& scope) {
  for (const auto* list : {&proto.value_infos, &proto.outputs}) {
    for (const Bytes message : stoppable(*list)) {
      const ValueInfoProto info = parse_value_info(message);
      const auto it = scope.names.find(info.name);
      if (it == scope.names.end()) continue;
      Value& value = scope.graph.values[static_cast<size_t>(it->second)];
      if (!value.dtype && !value.shape && !value.list) declare(value, info);
    }
  }
}

void GraphReader::read_outputs(const GraphProto& proto, Scope& scope) {
  std::set<std::string, std::less<>> names;  // of the outputs so far
  std::map<std::string_view, int> listed;    // how often each value was
  for (const Bytes message : stoppable(proto.outputs)) {
    const ValueInfoProto info = parse_value_info(message);
    const ValueId* id = info.name.empty() ? nullptr : find(scope, info.name);
    if (!id) fail(cat("the graph output ", quote(info.name), " is computed by no node"));
    int& times = listed[info.name];
    if (++times == 1 || scope.parent) {
      scope.graph.outputs.push_back(*id);
      names.emplace(info.name);
      continue;
    }
    // A value that is listed again is an output of its own, so that a model has as many as its file lists, in that
    // order, as in other engines. It has a name of its own, too: in a dict of answers, in out= and in checks, one name
    // for both would lose one of them.
    std::string name = cat(info.name, "_", times);
    while (scope.names.contains(name) || names.contains(name)) name = cat(info.name, "_", ++times);
    const ValueId again = add_value(scope, name);
    declare(scope.graph.values[static_cast<size_t>(again)], info);
    forward(*id, again, scope);
    scope.graph.outputs.push_back(again);
    names.insert(std::move(name));
  }
  if (!scope.parent && scope.graph.outputs.empty()) fail("the model has no outputs");
}

ValueId GraphReader::add_value(Scope& scope, std::string_view name) {
  limits_.values(1);
  if (!scope.frame) return scope.graph.add_value(std::string(name));
  limits_.inlined_bytes(scope.frame->prefix.size() + name.size());
  return scope.graph.add_value(cat(scope.frame->prefix, name));
}

const ValueId* GraphReader::find(Scope& scope, std::string_view name) {
  if (const auto it = scope.names.find(name); it != scope.names.end()) return &it->second;
  if (!scope.parent) return nullptr;
  const ValueId* outer = find(*scope.parent, name);
  if (!outer) return nullptr;
  // From the enclosing graph (and so on outwards): one capture however often it is read.
  if (*outer == kNoValue) return &scope.names.emplace(name, kNoValue).first->second;
  const Value& source = scope.parent->graph.values[static_cast<size_t>(*outer)];
  const ValueId inner = add_value(scope, name);
  scope.graph.values[static_cast<size_t>(inner)].dtype = source.dtype;
  scope.graph.values[static_cast<size_t>(inner)].shape = source.shape;
  scope.graph.captures.push_back({*outer, inner});
  return &scope.names.emplace(name, inner).first->second;
}

void GraphReader::define_outputs(const NodeProto& proto, Scope& scope) {
  for (const std::string_view name : proto.outputs)
    if (!name.empty()) define(scope, name, [&] { return "by " + describe(proto); });
}

void GraphReader::emit(const NodeProto& proto, Scope& scope) {
  if (proto.op_type.empty()) fail(cat(describe(proto), " has no op_type"));
  const auto it = functions_.find({proto.domain, proto.op_type, proto.overload});
  if (it != functions_.end()) return inline_function(it->second, proto, scope);
  scope.graph.nodes.push_back(read_node(proto, scope));
}

Node GraphReader::read_node(const NodeProto& proto, Scope& scope) {
  Node node;
  node.op_type = proto.op_type;
  node.domain = proto.domain;
  node.name = proto.name;
  if (scope.frame) {
    limits_.inlined_bytes(scope.frame->prefix.size() + proto.name.size());
    node.name = cat(scope.frame->prefix, proto.name.empty() ? proto.op_type : proto.name);
  }
  node.version = version_of(proto, scope);
  node.inputs = read_node_inputs(proto, scope);
  for (const std::string_view name : proto.outputs)
    node.outputs.push_back(name.empty() ? kNoValue : scope.names.at(name));
  for (auto& [name, value] : read_attributes(proto, scope)) node.attributes.emplace(name, std::move(value));
  return node;
}

std::vector<ValueId> GraphReader::read_node_inputs(const NodeProto& proto, Scope& scope) {
  if (scope.frame) limits_.inlined_bytes(64 * (proto.inputs.size() + proto.outputs.size()));
  std::vector<ValueId> out;
  out.reserve(proto.inputs.size());
  for (const std::string_view name : proto.inputs) {
    const ValueId* id = name.empty() ? nullptr : find(scope, name);
    if (!id && !name.empty()) fail(cat(describe(proto), " reads ", quote(name), ", which nothing defines"));
    out.push_back(id ? *id : kNoValue);
  }
  return out;
}

int GraphReader::version_of(const NodeProto& proto, const Scope& scope) const {
  if (proto.domain == "inferkit")
    fail(cat(describe(proto), ": the domain 'inferkit' is internal and may not come from a file"));
  if (scope.frame) {
    const Opsets& own = scope.frame->function.opsets;
    if (const auto it = own.find(std::string(proto.domain)); it != own.end()) return it->second;
  }
  if (const auto it = opsets_.find(std::string(proto.domain)); it != opsets_.end()) return it->second;
  fail(cat(describe(proto), " is of the domain ", quote(proto.domain), ", for which the model imports no opset"));
}

}  // namespace inferkit::onnx
