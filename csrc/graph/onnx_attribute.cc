// The attributes of nodes: values, tensors, subgraphs, and references to a function's attributes.
#include "base/text.h"
#include "graph/onnx_graph.h"

namespace inferkit::onnx {
namespace {

size_t payload_bytes(const Attribute& attribute) {
  if (const auto* s = std::get_if<std::string>(&attribute)) return s->size();
  if (const auto* v = std::get_if<std::vector<int64_t>>(&attribute)) return v->size() * sizeof(int64_t);
  if (const auto* v = std::get_if<FloatList>(&attribute)) return v->size() * sizeof(float);
  size_t bytes = sizeof(Attribute);
  if (const auto* v = std::get_if<std::vector<std::string>>(&attribute))
    for (const std::string& s : *v) bytes += sizeof(s) + s.size();
  return bytes;
}

}  // namespace

std::map<std::string_view, Attribute> GraphReader::read_attributes(const NodeProto& proto, Scope& scope) {
  std::map<std::string_view, Attribute> out;
  for (const Bytes message : proto.attributes) {
    AttributeProto attribute = parse_attribute(message);
    // Tensors are shared between calls of a function; all else is made anew for each.
    if (scope.frame) limits_.inlined_bytes(64 + (attribute.tensor ? 0 : message.size()));
    if (attribute.name.empty())
      throw Error(ErrorCode::kModel, cat(describe(proto), " has an attribute without a name"));
    if (out.contains(attribute.name))
      throw Error(ErrorCode::kModel, cat(describe(proto), " has the attribute ", quote(attribute.name), " twice"));
    const std::string_view name = attribute.name;
    if (auto value = read_attribute(std::move(attribute), proto, scope)) out.emplace(name, std::move(*value));
  }
  return out;
}

std::optional<Attribute> GraphReader::read_attribute(AttributeProto a, const NodeProto& node, Scope& scope) {
  const auto what = [&] { return cat("attribute ", quote(a.name), " of ", describe(node)); };
  const auto fail = [&](const std::string& why) { throw Error(ErrorCode::kModel, cat(what(), " ", why)); };
  if (!a.ref_attr_name.empty()) {
    if (!scope.frame) fail(cat("refers to ", quote(a.ref_attr_name), " of a function, but is in none"));
    for (const auto* attributes : {&scope.frame->attributes, &scope.frame->function.defaults}) {
      const auto it = attributes->find(a.ref_attr_name);
      if (it == attributes->end()) continue;
      limits_.inlined_bytes(payload_bytes(it->second));
      return it->second;
    }
    return std::nullopt;  // left out by the call: left out here
  }
  switch (a.type) {
    case AttributeType::kFloat:
      return a.f;
    case AttributeType::kInt:
      return a.i;
    case AttributeType::kString:
      return std::string(a.s);
    case AttributeType::kFloats:
      return FloatList(a.floats);
    case AttributeType::kInts:
      return std::move(a.ints);
    case AttributeType::kStrings:
      limits_.strings(a.strings.size());
      return std::vector<std::string>(a.strings.begin(), a.strings.end());
    case AttributeType::kTensor:
      if (!a.tensor) fail("is of type TENSOR but has none");
      return tensors_.load(*a.tensor, what());
    case AttributeType::kGraph:
      if (!a.graph) fail("is of type GRAPH but has none");
      check_depth(scope.depth + 1, node);
      return std::make_shared<Graph>(read_graph(*a.graph, &scope, scope.frame, scope.depth + 1));
    case AttributeType::kTypeProto:
      if (node.op_type == "Optional") return std::nullopt;  // nothing is in it, of whatever type
      break;
    case AttributeType::kUndefined:
      fail("has no type and no value");
      break;
    case AttributeType::kSparseTensor:
      if (!a.sparse_tensor) fail("is of type SPARSE_TENSOR but has none");
      return tensors_.load_sparse(parse_sparse_tensor(*a.sparse_tensor), what());
    default:
      break;
  }
  throw Error(ErrorCode::kUnsupportedOp,
              what() + " is a list of tensors, sparse tensors or graphs, or a type, which inferkit does not support");
}

}  // namespace inferkit::onnx
