// The graph between the file and the plan: values, nodes in topological order, constants. Plain data; passes change it,
// compile reads it. A graph owns nothing of the file but what its tensors keep alive.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/tensor_view.h"
#include "graph/tensor_data.h"
#include "memory/mapped_files.h"

namespace inferkit {

using ValueId = int32_t;
inline constexpr ValueId kNoValue = -1;  // an optional input or output that is left out

struct TensorList;  // graph/tensor_list.h

/// A constant. `data` points into a mapped file or into memory that `owner` keeps, and so do views of strings. As a
/// pointer it is aligned to its element; of a constant that the file has at an odd address, that is a copy.
struct Tensor {
  DType dtype = DType::kF32;
  Shape shape;
  TensorData data;
  std::shared_ptr<const void> owner;
  /// Tells a constant of a model from every other whose memory is not the same, and stays with its copies: what is
  /// derived from it once is kept under it. The same in every load of a file. 0 until number_graph, and for what a plan
  /// or a run computes.
  uint64_t id = 0;
  /// Of a run alone: a sequence of tensors of this type rather than one tensor. It has no data and no elements.
  std::shared_ptr<const TensorList> list = nullptr;

  TensorView view() const { return {dtype, shape, data}; }
  size_t bytes() const { return static_cast<size_t>(shape.elements()) * dtype_size(dtype); }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(static_cast<const void*>(data));
  }
};

/// A tensor that owns fresh, zeroed, 64-byte aligned memory; `*data` is where to write it.
Tensor make_tensor(DType dtype, const Shape& shape, void** data);
template <class T>
Tensor make_tensor(const Shape& shape, std::span<const T> values);

/// An attribute of floats. It may be as large as the file (the coefficients of a machine): copies share it, and it has
/// a number as constants have.
struct FloatList {
  FloatList(const std::vector<float>& list);
  std::span<const float> values() const { return {tensor.as<float>(), static_cast<size_t>(tensor.shape[0])}; }
  size_t size() const { return values().size(); }

  Tensor tensor;  // of one dimension
};

struct Graph;
using Attribute = std::variant<int64_t, float, std::string, Tensor, std::vector<int64_t>, FloatList,
                               std::vector<std::string>, std::shared_ptr<Graph>>;

/// A node as it stands in the file.
struct NodeOrigin {
  std::string op;  // with its domain, where that is not ONNX's
  std::string name;
  bool operator==(const NodeOrigin&) const = default;
};

struct Node {
  std::string op_type;
  std::string domain;  // "" is the default ONNX domain ("ai.onnx" is normalised to it)
  std::string name;    // as in the file; may be empty
  int version = 0;     // the opset that the file imports for the domain
  /// Tells the node from every other of its model, and is the same in all copies of it: what is made once per node is
  /// kept under it. An address would be another node's tomorrow. 0 until number_graph; a node made later has none.
  uint64_t id = 0;
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  std::map<std::string, Attribute, std::less<>> attributes;
  std::vector<NodeOrigin> stands_for;  // what a rewrite made it of; empty where it is as in the file

  /// "node 'fc1' (Gemm)", for messages: as the file has it, where it is a rewrite. Then the step's own operator is
  /// named behind it, "node 'q' (com.microsoft.QGemm, which is computed with MatMulInteger)", or what else the step
  /// does.
  std::string label() const;
  /// What runs, which a rewrite may have named: "node 'q/MatMulInteger' (MatMulInteger)", for traces.
  std::string step_label() const;
  /// What it stands for; itself, where it is as in the file.
  std::vector<NodeOrigin> origins() const;
};

/// What the file declares of a sequence, or of an optional, of tensors.
struct ListType {
  bool sequence = false, optional = false;
  std::optional<DType> dtype;  // of the tensors
  std::optional<Shape> shape;
};

struct Value {
  std::string name;
  std::optional<DType> dtype;  // what the file declares; advice, except for graph inputs
  std::optional<Shape> shape;
  std::optional<ListType> list = std::nullopt;  // then it has no dtype and no shape
};

/// A value of the enclosing graph that a subgraph (If, Loop, Scan) reads.
struct Capture {
  ValueId outer = kNoValue;
  ValueId inner = kNoValue;
};

struct Graph {
  std::string name;
  std::vector<Value> values;
  std::vector<Node> nodes;  // topological order
  std::vector<ValueId> inputs;
  std::vector<ValueId> outputs;
  std::unordered_map<ValueId, Tensor> constants;
  std::vector<Capture> captures;  // empty in the main graph
  const Graph* origin = nullptr;  // of a copy whose captures alone differ: the graph in the file

  ValueId add_value(std::string value_name);
  const Tensor* constant(ValueId id) const {
    const auto it = constants.find(id);
    return it == constants.end() ? nullptr : &it->second;
  }
};

/// Gives every node, every constant and every list of floats an id, those of subgraphs too: once the graph is as it
/// stays, so that nodes that a rewrite made out of one differ.
void number_graph(Graph& graph);

/// A constant of the main graph that is declared as an input, too: a default, which callers may replace.
struct DefaultInput {
  ValueId id = kNoValue;
  Value declared;
};

/// Everything that a model file says.
struct ModelFile {
  Graph graph;
  std::vector<DefaultInput> defaults;
  std::map<ValueId, std::shared_ptr<const TensorView>> fallbacks;  // of inputs that may be left out
  std::map<std::string, int> opsets;                               // domain -> version
  int64_t ir_version = 0;
  std::string producer;  // with its version
  int64_t version = 0;   // of the model, as its authors count
  std::map<std::string, std::string> metadata;
  size_t file_bytes = 0;        // the model and its external data
  MappedFiles files;            // what its tensors are views of, or copies that are still to be made
  size_t misaligned_bytes = 0;  // at odd addresses, so that whoever reads their elements reads a copy
};

template <class T>
Tensor make_tensor(const Shape& shape, std::span<const T> values) {
  void* data = nullptr;
  Tensor tensor = make_tensor(kDTypeOf<T>, shape, &data);
  std::copy(values.begin(), values.end(), static_cast<T*>(data));
  return tensor;
}

}  // namespace inferkit
