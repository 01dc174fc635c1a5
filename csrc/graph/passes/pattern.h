// What the passes share: who makes and who reads each value, and replacing nodes with that kept up to date.
#pragma once
#include <optional>
#include <string_view>
#include <vector>

#include "graph/ir.h"
#include "platform/stoppable.h"

namespace inferkit {

/// The domain of the operators that passes write. The reader refuses it in files.
inline constexpr std::string_view kInternalDomain = "inferkit";

/// The longest sum of products of two differences of bytes that int32 holds.
inline constexpr int64_t kLongestByteSum = 0x7fffffff / (255 * 255);

/// An attribute that passes give a Gelu: it was of a half type, whose digits reach further towards 0 than the kernels'
/// form, which holds an absolute error.
inline constexpr std::string_view kKeepsTail = "keeps_tail";
/// An attribute of a widened GroupQueryAttention: the number, in TensorProto.DataType, of the half type that its cache
/// keeps, before and afterwards.
inline constexpr std::string_view kCacheType = "cache_type";

inline bool is_op(const Node& node, std::string_view op, std::string_view domain = "") {
  return node.op_type == op && node.domain == domain;
}
/// Absent, or of another type than expected (which the operator itself refuses later): the fallback.
int64_t int_attr(const Node& node, std::string_view name, int64_t fallback);
float float_attr(const Node& node, std::string_view name, float fallback);
std::string string_attr(const Node& node, std::string_view name, std::string_view fallback);
/// Whether its first output has the type of its first input, as of the operators of ONNX's own domain and of ours.
bool keeps_type(const Node& node);
/// Does this BatchNormalization take the statistics of its batch? Before opset 14 the one with all five outputs does,
/// also where nobody reads them.
bool batch_norm_trains(const Node& node);

/// A view on the graph while one pass changes it. Removed nodes keep their index until finish().
class Rewriter {
 public:
  explicit Rewriter(Graph& graph);

  Graph& graph() { return graph_; }
  const Graph& graph() const { return graph_; }
  int size() const { return static_cast<int>(graph_.nodes.size()); }
  const Node& node(int n) const { return graph_.nodes[static_cast<size_t>(n)]; }
  /// The indices of all nodes, those of removed ones included.
  Stoppable<Indices<int>> nodes() const { return stoppable_indices(size()); }
  bool alive(int n) const { return !removed_[static_cast<size_t>(n)]; }

  /// The node that computes `id`; nullptr for inputs, constants, captures and kNoValue.
  const Node* producer(ValueId id) const;
  /// Its index, or -1.
  int producer_index(ValueId id) const;
  /// How often nodes (or their subgraphs) and the graph's outputs read `id`.
  int reads(ValueId id) const;
  /// The node that alone reads `id`, once; -1 where there is none, or `id` is an output of the graph or kNoValue.
  int only_reader(ValueId id) const;

  /// The elements' type where it is certain: from constants, graph inputs and casts through operators that keep it.
  /// What the file declares about intermediates is not trusted.
  std::optional<DType> dtype(ValueId id) const;
  bool is_f32(ValueId id) const { return dtype(id) == DType::kF32; }
  /// A float32 constant, else nullptr.
  const Tensor* f32_constant(ValueId id) const;
  /// The single element of a float32 constant.
  std::optional<float> f32_scalar(ValueId id) const;
  /// The elements of an int64 constant.
  std::optional<std::vector<int64_t>> int_constant(ValueId id) const;
  /// Is `id` a float32 constant of one element within a relative 1e-6 of `expected`? Its rank is bounded because
  /// broadcasting could add its dimensions to the result, which a fused operator would not.
  bool is_number(ValueId id, double expected, size_t max_rank = 0) const;
  /// Of a node with two inputs, the other one; kNoValue where `id` is not exactly one of them.
  static ValueId other_input(const Node& node, ValueId id);

  ValueId add_constant(std::string name, Tensor tensor);
  /// `node` stands for all that is computed between its inputs and what node n gives; call it before remove().
  void replace(int n, Node node);
  void remove(int n);
  /// Every reader of `from`, subgraphs and graph outputs included, reads `to` instead.
  void redirect(ValueId from, ValueId to);
  /// Node n writes `to` where it wrote `from`; `to` must have no producer any more.
  void rename_output(int n, ValueId from, ValueId to);
  /// Drops the removed nodes; whether anything was changed. The last call.
  bool finish();
  /// What a node that reads `inputs` and gives what node `last` gives stands for.
  std::vector<NodeOrigin> origins_between(const std::vector<ValueId>& inputs, int last) const;

 private:
  void count_in(int n);
  void count_out(int n);

  Graph& graph_;
  std::vector<int> producers_;
  std::vector<std::vector<int>> readers_;  // node indices, one for each read
  std::vector<int> output_uses_;
  std::vector<bool> is_input_;
  std::vector<bool> removed_;
  bool changed_ = false;
};

/// Calls visit(Graph&) for each subgraph of the node.
template <class Visit>
void for_each_subgraph(Node& node, Visit&& visit) {
  for (auto& [name, attribute] : node.attributes)
    if (auto* sub = std::get_if<std::shared_ptr<Graph>>(&attribute)) visit(**sub);
}
/// The same for all nodes of the graph.
template <class Visit>
void for_each_subgraph(Graph& graph, Visit&& visit) {
  for (Node& node : stoppable(graph.nodes)) for_each_subgraph(node, visit);
}

/// Drops the nodes of those indices; whether there were any.
bool drop_nodes(Graph& graph, const std::vector<bool>& dropped);

}  // namespace inferkit
