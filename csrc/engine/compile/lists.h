// Sequences while a plan is compiled. The tensors of one are values like any other; the sequence itself is a list of
// them that the compiler keeps, and an operator on sequences is spelled out for that list.
#pragma once
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "graph/ir.h"
#include "graph/op_schema.h"

namespace inferkit {

/// What a sequence is known to be; an optional with something in it is what is in it.
struct ListFacts {
  bool none = false;           // an optional with nothing in it
  std::optional<DType> dtype;  // nullopt: that of its first tensor, whatever it is
  std::vector<ValueId> items;
};

/// More tensors than any sequence may have.
inline constexpr size_t kMostItems = size_t{1} << 16;

/// A node some of whose inputs or outputs are sequences. What is added takes its place.
class ListContext : public NodeContext {
 public:
  using Attributes = std::map<std::string, Attribute, std::less<>>;
  using NodeContext::NodeContext;
  virtual ~ListContext() = default;

  size_t count() const { return node_.inputs.size(); }
  /// kNoValue where it is left out.
  ValueId in(size_t i) const { return i < node_.inputs.size() ? node_.inputs[i] : kNoValue; }
  virtual bool is_list(size_t i) const = 0;
  /// What input i is. Throws NeedsValue where only a run tells, WrongNode where it is a tensor.
  virtual const ListFacts& list(size_t i) const = 0;
  /// A tensor that is no sequence. Throws WrongNode where it is one, or is left out.
  virtual const TensorFacts& tensor(size_t i) const = 0;

  /// A node of the ONNX domain as opset `version` defines it; all of its outputs.
  virtual std::vector<ValueId> add(std::string_view op, int version, std::vector<ValueId> inputs, size_t outputs,
                                   Attributes attributes = {}) = 0;
  virtual ValueId constant(Tensor tensor) = 0;
  /// The nodes of a subgraph for these inputs; its outputs.
  virtual std::vector<ValueId> add_body(const Graph& body, std::span<const ValueId> inputs) = 0;
  /// Output `o` is the tensor `id`, or a sequence.
  virtual void give(size_t o, ValueId id) = 0;
  virtual void give_list(size_t o, ListFacts list) = 0;
};

using ResolveFn = void (*)(ListContext&);

/// The operator, of our own domain, that makes a sequence of its inputs between two plans.
inline constexpr std::string_view kListOp = "List";

}  // namespace inferkit
