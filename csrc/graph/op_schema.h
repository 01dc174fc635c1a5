// What the graph layer knows of an operator: its opsets and its shape rule. Shapes are concrete when a rule runs, so a
// rule is a plain computation; it may also give an output's value where shapes alone decide it (Shape, Size).
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/validation.h"
#include "graph/ir.h"

namespace inferkit {

/// What is known of a value while a plan is compiled.
struct TensorFacts {
  DType dtype = DType::kF32;
  Shape shape;
  const Tensor* constant = nullptr;  // its value, where it is known before the run
  bool of_plan = false;              // and then: of this plan's, as it may follow from the shapes that the plan is for

  /// Whether its sizes are the layer's own: the value is the file's. What a plan finds may follow from its batch.
  bool is_of_file() const { return constant && constant->id != 0 && !of_plan; }
};

/// A rule asked for the value of an input that only a run gives. The compiler then leaves the node to a later stage,
/// where the value is known; who has no later stage reports it as what is not supported.
class NeedsValue final : public Error {
 public:
  NeedsValue(size_t input, const std::string& message) : Error(ErrorCode::kUnsupportedOp, message), input_(input) {}
  size_t input() const { return input_; }

 private:
  size_t input_;
};

/// Facts of an input that nothing is known of, and what a rule gets that asks for them: so far its answer depends on
/// the node's attributes alone. Shape rules look at those first, so that what a model lacks shows when it is loaded,
/// also in nodes whose inputs no guess at free dimensions tells.
extern const TensorFacts kUnknownFacts;
struct UnknownInput {};

/// The graph is wrong whatever the sizes of its inputs are.
class WrongNode final : public Error {
 public:
  explicit WrongNode(const std::string& message) : Error(ErrorCode::kModel, message) {}
};

/// A node's view of itself: attributes, and the facts of its inputs and outputs. Every failure names the node.
class NodeContext {
 public:
  NodeContext(const Node& node, std::span<const TensorFacts* const> inputs, std::span<TensorFacts> outputs)
      : node_(node), inputs_(inputs), outputs_(outputs) {}

  const Node& node() const { return node_; }
  int version() const { return node_.version; }
  size_t input_count() const { return inputs_.size(); }
  size_t output_count() const { return outputs_.size(); }
  bool has_input(size_t i) const { return i < inputs_.size() && inputs_[i] != nullptr; }
  /// Is anything known of input i? False where a rule is asked about attributes alone.
  bool knows(size_t i) const { return !has_input(i) || inputs_[i] != &kUnknownFacts; }
  bool has_output(size_t i) const { return i < node_.outputs.size() && node_.outputs[i] != kNoValue; }
  /// Throws Error(kModel) where input i is left out, UnknownInput where nothing is known of it.
  const TensorFacts& input(size_t i) const;
  const TensorFacts& output(size_t i) const { return outputs_[i]; }

  bool has_attr(std::string_view name) const { return node_.attributes.find(name) != node_.attributes.end(); }
  int64_t attr_int(std::string_view name, int64_t fallback) const;
  float attr_float(std::string_view name, float fallback) const;
  std::string attr_string(std::string_view name, std::string_view fallback) const;
  std::vector<int64_t> attr_ints(std::string_view name) const;  // empty where absent
  std::vector<float> attr_floats(std::string_view name) const;
  std::vector<std::string> attr_strings(std::string_view name) const;
  /// nullptr where absent.
  const Tensor* attr_tensor(std::string_view name) const;

  /// The attribute "axis" (or another name) resolved against `rank`; fails where it is out of [-rank, rank).
  int64_t attr_axis(int64_t fallback, int64_t rank, std::string_view name = "axis") const;
  int64_t resolve_axis(int64_t axis, int64_t rank) const;
  /// The value of input i, which the output's shape or the lowering depends on. Throws NeedsValue where it is not known
  /// yet, Error(kModel) where the input is left out.
  const Tensor& known_value(size_t i) const;
  /// The same of an int32 or int64 input (shape arithmetic), as numbers.
  std::vector<int64_t> const_ints(size_t i) const;

  [[noreturn]] void fail(const std::string& message) const;         // Error(kModel): the graph is wrong
  [[noreturn]] void wrong(const std::string& message) const;        // WrongNode: the same, whatever the sizes
  [[noreturn]] void unsupported(const std::string& message) const;  // Error(kUnsupportedOp): we cannot run it

 protected:
  const Node& node_;
  std::span<const TensorFacts* const> inputs_;
  std::span<TensorFacts> outputs_;
};

/// What a shape rule sees: it must call set_output for every output that the node has.
class InferContext : public NodeContext {
 public:
  InferContext(const Node& node, std::span<const TensorFacts* const> inputs, std::span<TensorFacts> outputs,
               std::vector<std::shared_ptr<Tensor>>& constants)
      : NodeContext(node, inputs, outputs), constants_(constants) {}
  void set_output(size_t i, DType dtype, const Shape& shape);
  /// The output's value follows from shapes alone.
  void set_constant(size_t i, Tensor value);

 private:
  std::vector<std::shared_ptr<Tensor>>& constants_;
};

using InferFn = void (*)(InferContext&);

/// One operator over a range of opsets.
struct OpSchema {
  std::string_view domain = "";
  std::string_view name = "";
  int since = 1;
  int until = 1'000'000;  // the last opset that it holds for
  int min_inputs = 0;
  int max_inputs = 1'000'000;
  int min_outputs = 1;
  int max_outputs = 1'000'000;
  InferFn infer = nullptr;
  /// Whether what the node makes of a row depends on all others, by its definition: not because an axis that it is told
  /// is the first. It is asked with the graph that the node is of. Null is no.
  bool (*rows_mix)(const Node&, const Graph&) = nullptr;
  /// Axes of input `i` along which the node makes one element of others, or of its place, although its output has them
  /// all: those of a Softmax, the steps of an LSTM. An axis that is reduced away needs no word. Null: none.
  Axes (*mixed_axes)(const NodeContext&, size_t i) = nullptr;
  /// Whether its inputs may be sequences.
  bool takes_lists = false;
};

/// Every axis but the first: of what treats the first as a batch.
inline Axes behind_first_axis(const NodeContext&, size_t) { return static_cast<Axes>(~1u); }
/// Where the node's output has another size than its first input: of what resizes or repeats.
inline Axes mixed_where_sizes_change(const NodeContext& c, size_t i) {
  const Shape &in = c.input(0).shape, &out = c.output(0).shape;
  Axes axes = 0;
  for (size_t axis = 0; i == 0 && axis < in.rank() && axis < out.rank(); ++axis) {
    if (in[axis] != out[axis]) axes = static_cast<Axes>(axes | 1u << axis);
  }
  return axes;
}
inline Axes one_axis(int64_t axis) { return static_cast<Axes>(1u << axis); }

}  // namespace inferkit
