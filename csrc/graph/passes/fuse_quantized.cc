// Products of dequantized bytes as products of the bytes, with the scales multiplied:
//   MatMul(DequantizeLinear(x), DequantizeLinear(w)) -> inferkit.DequantizedMatMul(x, w), and Gemm likewise
//   Conv(DequantizeLinear(x), DequantizeLinear(w)) -> DequantizeLinear(ConvInteger(x, w))
// as they stand in models that ONNX Runtime's and PyTorch's quantizers write. Integer sums are exact, so the answer is
// nearer to the true one than the float sum that it replaces. Of a MatMul both sides may be computed.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

constexpr int kIntegerOpset = 10, kDequantizeOpset = 13, kAddOpset = 14;

/// What a DequantizeLinear says of bytes, all its parameters constant.
struct Dequantized {
  ValueId bytes = kNoValue, zero = kNoValue;
  const Tensor* scale = nullptr;  // float32; one value, or one for each index of `axis`
  int64_t axis = 0;

  int64_t scales() const { return scale->shape.elements(); }
};

std::optional<Dequantized> dequantized(const Rewriter& r, ValueId id) {
  const Node* node = r.producer(id);
  if (!node || !is_op(*node, "DequantizeLinear") || node->inputs.size() < 2 || node->inputs[0] == kNoValue) return {};
  if (int_attr(*node, "block_size", 0) != 0 || int_attr(*node, "output_dtype", 0) > 1) return {};
  Dequantized out{node->inputs[0], node->inputs.size() > 2 ? node->inputs[2] : kNoValue,
                  r.f32_constant(node->inputs[1]), int_attr(*node, "axis", 1)};
  const auto dtype = r.dtype(out.bytes);
  if (!out.scale || out.scale->shape.rank() > 1 || (dtype != DType::kU8 && dtype != DType::kI8)) return {};
  if (out.zero == kNoValue) return out;
  const Tensor* zero = r.graph().constant(out.zero);
  if (!zero || zero->dtype != dtype || zero->shape != out.scale->shape) return {};
  return out;
}

/// The scales of the products' sums: those of w times that of x; empty where one is not a normal number, as its factors
/// may be. (1e20 twice are inf, and inf times a sum of 0 is no longer 0.)
std::vector<float> product_scales(const Dequantized& x, const Dequantized& w) {
  std::vector<float> out(static_cast<size_t>(w.scales()));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = x.scale->as<float>()[0] * w.scale->as<float>()[i];
    if (!std::isnormal(out[i])) return {};
  }
  return out;
}

class Fusion {
 public:
  explicit Fusion(Graph& graph) : graph_(graph), r_(graph) {}

  bool run() {
    std::map<size_t, std::vector<Node>> fused;  // what takes a node's place; until the end the nodes stay for r_
    for (const size_t n : stoppable_indices(graph_.nodes.size())) {
      const Node& node = graph_.nodes[n];
      made_.clear();
      place_ = static_cast<int>(n);
      if (is_op(node, "MatMul") || is_op(node, "Gemm") ? product(node) : is_op(node, "Conv") && conv(node)) {
        fused.emplace(n, std::move(made_));
      }
    }
    if (fused.empty()) return false;
    std::vector<Node> out;
    auto next = fused.begin();
    for (const size_t n : stoppable_indices(graph_.nodes.size())) {
      if (next != fused.end() && next->first == n) {
        std::ranges::move((next++)->second, std::back_inserter(out));
      } else {
        out.push_back(std::move(graph_.nodes[n]));
      }
    }
    graph_.nodes = std::move(out);
    return true;
  }

 private:
  /// w [K, N], or [N, K] where a Gemm's is transposed.
  bool product(const Node& node) {
    const bool gemm = node.op_type == "Gemm", transposed = gemm && int_attr(node, "transB", 0) != 0;
    if (node.inputs.size() < 2 || node.outputs.size() != 1) return false;
    if (gemm && (int_attr(node, "transA", 0) != 0 || float_attr(node, "alpha", 1) != 1)) return false;
    const auto x = dequantized(r_, node.inputs[0]), w = dequantized(r_, node.inputs[1]);
    if (!x || !w || x->scales() != 1) return false;
    const bool has_bias = gemm && node.inputs.size() > 2 && node.inputs[2] != kNoValue;
    if (const Tensor* weights = graph_.constant(w->bytes)) {
      if (weights->shape.rank() != 2) return false;
      const int64_t k = weights->shape[transposed ? 1 : 0], n = weights->shape[transposed ? 0 : 1];
      if (k > kLongestByteSum || !is_per_line(*w, transposed ? 0 : 1, n, 2)) return false;
      if (has_bias && (float_attr(node, "beta", 1) != 1 || !is_row(node.inputs[2], n))) return false;
    } else if (gemm || w->scales() != 1) {
      return false;
    }
    const std::vector<float> scales = product_scales(*x, *w);
    if (scales.empty()) return false;

    ValueId right = w->bytes;
    if (transposed) right = add("Transpose", kDequantizeOpset, {right}, {{"perm", std::vector<int64_t>{1, 0}}});
    const Shape shape = w->scales() == 1 ? Shape{1} : w->scale->shape;
    const ValueId scale =
        r_.add_constant(node.name + "/scale", make_tensor<float>(shape, std::span<const float>(scales)));
    const ValueId bias = has_bias ? node.inputs[2] : kNoValue;
    Node& made =
        append("DequantizedMatMul", kIntegerOpset, {x->bytes, right, x->zero, w->zero, scale, bias}, node.name);
    made.stands_for = r_.origins_between(made.inputs, place_);
    made.domain = kInternalDomain;
    if (gemm) made.attributes.emplace("rank", int64_t{2});  // unlike MatMul, it takes matrices alone
    made.outputs = node.outputs;
    return true;
  }

  bool conv(const Node& node) {
    if (node.inputs.size() < 2 || node.outputs.size() != 1) return false;
    const auto x = dequantized(r_, node.inputs[0]), w = dequantized(r_, node.inputs[1]);
    const Tensor* weights = w ? graph_.constant(w->bytes) : nullptr;
    if (!x || x->scales() != 1 || !weights || weights->shape.rank() < 3) return false;
    const Shape& shape = weights->shape;
    const int64_t filters = shape[0], groups = int_attr(node, "group", 1);
    // The windows of a group that has few filters are not worth packing: a depthwise convolution stays in float.
    constexpr int64_t kFewFilters = 4;
    if (filters < 1 || groups < 1 || filters / groups < kFewFilters) return false;
    if (shape.elements() / filters > kLongestByteSum ||
        !is_per_line(*w, 0, filters, static_cast<int64_t>(shape.rank()))) {
      return false;
    }
    const std::vector<float> scales = product_scales(*x, *w);
    if (scales.empty()) return false;
    const ValueId bias = node.inputs.size() > 2 ? node.inputs[2] : kNoValue;
    if (bias != kNoValue && !is_row(bias, filters)) return false;

    Node& sums = append("ConvInteger", kIntegerOpset, {x->bytes, w->bytes, x->zero, w->zero}, node.name);
    sums.attributes = node.attributes;
    std::vector<ValueId> read = sums.inputs;
    if (bias != kNoValue) read.push_back(bias);
    sums.stands_for = r_.origins_between(read, place_);
    ValueId column = kNoValue;
    if (bias != kNoValue) {  // [filters, 1, 1...]
      std::vector<int64_t> target(shape.rank() - 1, 1);
      target[0] = -1;
      const int64_t rank = static_cast<int64_t>(target.size());
      const Tensor to = make_tensor<int64_t>({rank}, std::span<const int64_t>(target));
      column = before_last("Reshape", kDequantizeOpset, {bias, r_.add_constant(node.name + "/bias_shape", to)});
    }
    finish(node, scales, w->scale->shape, 1, column);
    return true;
  }

  /// The last node gives integers: their float, which is what `node` gave.
  void finish(const Node& node, const std::vector<float>& scales, const Shape& shape, int64_t axis, ValueId bias) {
    const Tensor tensor = make_tensor<float>(shape, std::span<const float>(scales));
    const ValueId scale = r_.add_constant(node.name + "/scale", tensor);
    const ValueId sums = graph_.add_value(node.name + "/integer");
    made_.back().outputs = {sums};
    Node& y = append("DequantizeLinear", kDequantizeOpset, {sums, scale}, node.name);
    y.stands_for = node.origins();
    y.attributes.emplace("axis", axis);
    if (bias != kNoValue) {
      const ValueId unbiased = graph_.add_value(node.name + "/unbiased");
      y.outputs = {unbiased};
      append("Add", kAddOpset, {unbiased, bias}, node.name).stands_for = node.origins();
    }
    made_.back().outputs = node.outputs;
  }

  /// One scale, or one for each of the `count` indices of `axis`, of `rank` dimensions.
  static bool is_per_line(const Dequantized& d, int64_t axis, int64_t count, int64_t rank) {
    if (d.scales() == 1) return true;
    return d.scales() == count && (d.axis == axis || d.axis == axis - rank);
  }

  /// A constant, or a dequantized one, of n floats.
  bool is_row(ValueId id, int64_t n) const {
    const Node* node = r_.producer(id);
    const bool is_dequantized = node && is_op(*node, "DequantizeLinear") && node->inputs.size() > 1;
    const Tensor* values = is_dequantized ? graph_.constant(node->inputs[0]) : graph_.constant(id);
    return r_.is_f32(id) && values && values->shape == Shape{n};
  }

  Node& append(const char* op, int version, std::vector<ValueId> inputs, std::string name) {
    while (inputs.back() == kNoValue) inputs.pop_back();
    Node node;
    node.op_type = op;
    node.name = std::move(name);
    node.version = version;
    node.inputs = std::move(inputs);
    made_.push_back(std::move(node));
    return made_.back();
  }
  ValueId add(const char* op, int version, std::vector<ValueId> inputs,
              std::map<std::string, Attribute, std::less<>> attributes = {}) {
    const ValueId out = graph_.add_value(op);
    Node& node = append(op, version, std::move(inputs), {});
    node.attributes = std::move(attributes);
    node.outputs = {out};
    return out;
  }
  /// The same, before the node that was made last.
  ValueId before_last(const char* op, int version, std::vector<ValueId> inputs) {
    const ValueId out = add(op, version, std::move(inputs));
    std::swap(made_.back(), *(made_.end() - 2));
    return out;
  }

  Graph& graph_;
  Rewriter r_;
  int place_ = 0;           // of the node at hand
  std::vector<Node> made_;  // in its place
};

}  // namespace

bool fuse_quantized(Graph& graph) {
  bool changed = Fusion(graph).run();
  if (changed) eliminate_dead_nodes(graph);
  for_each_subgraph(graph, [&](Graph& sub) { changed |= fuse_quantized(sub); });
  return changed;
}

}  // namespace inferkit
