#include "graph/passes/pattern.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "graph/topological_sort.h"

namespace inferkit {
namespace {

// The output has the type of input 0.
constexpr std::string_view kKeepType =
    " Abs Acos Acosh Add Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Clip "
    "Concat Conv ConvTranspose Cos Cosh CumSum DepthToSpace Div Dropout Elu Erf Exp Expand "
    "Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool "
    "GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LRN LayerNorm "
    "LayerNormalization LeakyRelu Linear Log LogSoftmax MatMul Max MaxPool Mean Min Mish Mul Neg "
    "PRelu Pad Pow Reciprocal ReduceMean ReduceSum Relu Reshape Resize Round Selu Sigmoid Silu "
    "Sin Sinh Slice Softmax Softplus Softsign Sqrt Squeeze Sub Swish Tan Tanh ThresholdedRelu "
    "Transpose ";

// All inputs have the same type, so a constant among them tells it.
constexpr std::string_view kInputsAgree = " Add Concat Conv Div Gemm MatMul Max Mean Min Mul PRelu Sub ";

bool is_among(std::string_view list, const std::string& op) {
  return list.find(" " + op + " ") != std::string_view::npos;
}

template <class T>
T attr(const Node& node, std::string_view name, T fallback) {
  const auto it = node.attributes.find(name);
  const T* value = it == node.attributes.end() ? nullptr : std::get_if<T>(&it->second);
  return value ? *value : fallback;
}

size_t at(ValueId id) { return static_cast<size_t>(id); }

}  // namespace

int64_t int_attr(const Node& node, std::string_view name, int64_t fallback) { return attr(node, name, fallback); }
float float_attr(const Node& node, std::string_view name, float fallback) { return attr(node, name, fallback); }
std::string string_attr(const Node& node, std::string_view name, std::string_view fallback) {
  return attr(node, name, std::string(fallback));
}

bool keeps_type(const Node& node) {
  return (node.domain.empty() || node.domain == kInternalDomain) && is_among(kKeepType, node.op_type);
}

bool batch_norm_trains(const Node& node) {
  if (node.version >= 14) return int_attr(node, "training_mode", 0) != 0;
  return node.version >= 7 && node.outputs.size() == 5 && std::ranges::count(node.outputs, kNoValue) == 0;
}

Rewriter::Rewriter(Graph& graph)
    : graph_(graph),
      producers_(graph.values.size(), -1),
      readers_(graph.values.size()),
      output_uses_(graph.values.size(), 0),
      is_input_(graph.values.size(), false),
      removed_(graph.nodes.size(), false) {
  for (const ValueId id : graph.outputs) ++output_uses_[at(id)];
  for (const ValueId id : graph.inputs) is_input_[at(id)] = true;
  for (const int n : nodes()) count_in(n);
}

void Rewriter::count_in(int n) {
  for_each_read(node(n), [&](ValueId id) { readers_[at(id)].push_back(n); });
  for (const ValueId id : node(n).outputs)
    if (id != kNoValue) producers_[at(id)] = n;
}

void Rewriter::count_out(int n) {
  for_each_read(node(n), [&](ValueId id) {
    auto& list = readers_[at(id)];
    list.erase(std::find(list.begin(), list.end(), n));
  });
  for (const ValueId id : node(n).outputs)
    if (id != kNoValue && producers_[at(id)] == n) producers_[at(id)] = -1;
}

int Rewriter::producer_index(ValueId id) const { return id == kNoValue ? -1 : producers_[at(id)]; }

const Node* Rewriter::producer(ValueId id) const {
  const int n = producer_index(id);
  return n < 0 ? nullptr : &node(n);
}

int Rewriter::reads(ValueId id) const {
  if (id == kNoValue) return 0;
  return static_cast<int>(readers_[at(id)].size()) + output_uses_[at(id)];
}

int Rewriter::only_reader(ValueId id) const {
  if (id == kNoValue) return -1;
  return readers_[at(id)].size() == 1 && output_uses_[at(id)] == 0 ? readers_[at(id)][0] : -1;
}

std::optional<DType> Rewriter::dtype(ValueId id) const {
  constexpr int kMaxSteps = 256;
  for (int step = 0; step < kMaxSteps && id != kNoValue; ++step) {
    if (const Tensor* c = graph_.constant(id)) return c->dtype;
    if (is_input_[at(id)]) return graph_.values[at(id)].dtype;
    const Node* p = producer(id);
    if (!p || p->outputs[0] != id || p->inputs.empty()) return std::nullopt;
    if (is_op(*p, "Cast")) {
      switch (int_attr(*p, "to", 0)) {
        case 1:
          return DType::kF32;
        case 6:
          return DType::kI32;
        case 7:
          return DType::kI64;
        case 9:
          return DType::kBool;
        case 11:
          return DType::kF64;
        default:
          return std::nullopt;
      }
    }
    if (is_op(*p, "QuantizeLinear")) {  // the zero point's type
      if (p->inputs.size() < 3 || p->inputs[2] == kNoValue) {
        return p->version < 21 || int_attr(*p, "output_dtype", 0) == 0 ? std::optional(DType::kU8) : std::nullopt;
      }
      id = p->inputs[2];
      continue;
    }
    if (is_op(*p, "DequantizeLinear")) {  // the scale's
      if (p->inputs.size() < 2 || (p->version >= 23 && int_attr(*p, "output_dtype", 0) != 0)) return std::nullopt;
      id = p->inputs[1];
      continue;
    }
    if (!keeps_type(*p)) return std::nullopt;
    if (is_among(kInputsAgree, p->op_type))
      for (const ValueId in : p->inputs)
        if (const Tensor* c = in == kNoValue ? nullptr : graph_.constant(in)) return c->dtype;
    id = p->inputs[0];
  }
  return std::nullopt;
}

const Tensor* Rewriter::f32_constant(ValueId id) const {
  const Tensor* c = id == kNoValue ? nullptr : graph_.constant(id);
  return c && c->dtype == DType::kF32 ? c : nullptr;
}

std::optional<float> Rewriter::f32_scalar(ValueId id) const {
  const Tensor* c = f32_constant(id);
  if (!c || c->shape.elements() != 1) return std::nullopt;
  return c->as<float>()[0];
}

std::optional<std::vector<int64_t>> Rewriter::int_constant(ValueId id) const {
  const Tensor* c = id == kNoValue ? nullptr : graph_.constant(id);
  if (!c || c->dtype != DType::kI64) return std::nullopt;
  return std::vector<int64_t>(c->as<int64_t>(), c->as<int64_t>() + c->shape.elements());
}

bool Rewriter::is_number(ValueId id, double expected, size_t max_rank) const {
  const auto v = f32_scalar(id);
  return v && graph_.constant(id)->shape.rank() <= max_rank && std::abs(*v - expected) <= 1e-6 * std::abs(expected);
}

ValueId Rewriter::other_input(const Node& node, ValueId id) {
  if (node.inputs.size() != 2 || (node.inputs[0] == id) == (node.inputs[1] == id)) return kNoValue;
  return node.inputs[0] == id ? node.inputs[1] : node.inputs[0];
}

ValueId Rewriter::add_constant(std::string name, Tensor tensor) {
  const ValueId id = graph_.add_value(std::move(name));
  graph_.values[at(id)].dtype = tensor.dtype;
  graph_.values[at(id)].shape = tensor.shape;
  graph_.constants.emplace(id, std::move(tensor));
  producers_.push_back(-1);
  readers_.emplace_back();
  output_uses_.push_back(0);
  is_input_.push_back(false);
  return id;
}

std::vector<NodeOrigin> Rewriter::origins_between(const std::vector<ValueId>& inputs, int last) const {
  std::set<int> found{last};  // in the order of the graph
  std::vector<int> open{last};
  while (!open.empty()) {
    const Node& reader = node(open.back());
    open.pop_back();
    for (const ValueId id : reader.inputs) {
      if (id == kNoValue || std::find(inputs.begin(), inputs.end(), id) != inputs.end()) continue;
      const int maker = producer_index(id);
      if (maker >= 0 && found.insert(maker).second) open.push_back(maker);
    }
  }
  std::vector<NodeOrigin> out;
  for (const int n : found) {
    for (NodeOrigin& origin : node(n).origins()) {
      if (std::find(out.begin(), out.end(), origin) == out.end() || origin.name.empty())
        out.push_back(std::move(origin));
    }
  }
  return out;
}

void Rewriter::replace(int n, Node node) {
  node.stands_for = origins_between(node.inputs, n);
  count_out(n);
  graph_.nodes[at(n)] = std::move(node);
  count_in(n);
  changed_ = true;
}

void Rewriter::remove(int n) {
  count_out(n);
  removed_[at(n)] = true;
  changed_ = true;
}

void Rewriter::redirect(ValueId from, ValueId to) {
  for (const int n : std::vector<int>(readers_[at(from)])) {
    Node& reader = graph_.nodes[at(n)];
    std::replace(reader.inputs.begin(), reader.inputs.end(), from, to);
    for_each_subgraph(reader, [&](Graph& sub) {
      for (Capture& c : sub.captures)
        if (c.outer == from) c.outer = to;
    });
    readers_[at(to)].push_back(n);
  }
  readers_[at(from)].clear();
  if (output_uses_[at(from)] > 0) std::replace(graph_.outputs.begin(), graph_.outputs.end(), from, to);
  output_uses_[at(to)] += std::exchange(output_uses_[at(from)], 0);
  changed_ = true;
}

void Rewriter::rename_output(int n, ValueId from, ValueId to) {
  auto& outputs = graph_.nodes[at(n)].outputs;
  std::replace(outputs.begin(), outputs.end(), from, to);
  producers_[at(from)] = -1;
  producers_[at(to)] = n;
  changed_ = true;
}

bool Rewriter::finish() {
  drop_nodes(graph_, removed_);
  return changed_;
}

bool drop_nodes(Graph& graph, const std::vector<bool>& dropped) {
  size_t kept = 0;
  for (const size_t n : stoppable_indices(graph.nodes.size())) {
    if (dropped[n]) continue;
    if (kept != n) graph.nodes[kept] = std::move(graph.nodes[n]);
    ++kept;
  }
  const bool any = kept != graph.nodes.size();
  graph.nodes.resize(kept);
  return any;
}

}  // namespace inferkit
