// GraphProto to Graph: names become ValueIds, subgraphs get their captures, calls of model-local functions are inlined.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/ir.h"
#include "graph/onnx_proto.h"
#include "graph/onnx_tensor.h"

namespace inferkit::onnx {

/// How much one file may make us build. What we build of a thing takes more memory than the fewest bytes that a file
/// can spend on it, so the limits are what a file of this size holds of things that are written as exporters write
/// them, and no model is too large for them. Subgraphs and functions nest, and functions multiply, so both have limits
/// of their own.
class Limits {
 public:
  explicit Limits(size_t file_bytes)
      : nodes_(500'000 + file_bytes / 16),
        values_(2'000'000 + file_bytes / 8),
        attributes_(2'000'000 + file_bytes / 8),
        edges_(10'000'000 + file_bytes / 3),
        strings_(10'000'000 + file_bytes / 2),
        inlined_nodes_(250'000 + file_bytes / 16),
        inlined_bytes_((size_t{256} << 20) + 8 * file_bytes) {}

  void nodes(size_t n) { take(nodes_, n, "nodes"); }
  void values(size_t n) { take(values_, n, "values"); }
  void attributes(size_t n) { take(attributes_, n, "attributes"); }
  void edges(size_t n) { take(edges_, n, "inputs and outputs of nodes"); }
  void strings(size_t n) { take(strings_, n, "strings in attributes"); }
  void inlined_nodes(size_t n) { take(inlined_nodes_, n, "nodes from functions"); }
  void inlined_bytes(size_t n) { take(inlined_bytes_, n, "bytes of attributes and names from functions"); }

  static constexpr int kMaxDepth = 20;

 private:
  static void take(size_t& left, size_t n, const char* what);

  size_t nodes_;       // at least 16 bytes each: the name of an operator, an input, an output
  size_t values_;      // at least 8: a name, where it is computed and where it is read
  size_t attributes_;  // at least 8: a name, a type, a value
  size_t edges_;       // at least 3: a name of one letter
  size_t strings_;     // at least 2: an empty one
  size_t inlined_nodes_;
  size_t inlined_bytes_;
};

/// "node 'fc1' (Gemm)", for messages.
std::string describe(const NodeProto& node);

/// Reads one model's graph; used once.
class GraphReader {
 public:
  /// `model` and the bytes below it must outlive the reader. Throws as read_onnx does.
  GraphReader(const ModelProto& model, TensorLoader& tensors, size_t file_bytes);

  Graph read_main();
  const std::map<std::string, int>& opsets() const { return opsets_; }
  /// After read_main(): the constants that are declared as inputs, too.
  std::vector<DefaultInput>& defaults() { return defaults_; }

 private:
  using Opsets = std::map<std::string, int>;

  struct Function {
    FunctionProto proto;
    std::vector<NodeProto> nodes;
    Opsets opsets;
    std::map<std::string_view, Attribute> defaults;
  };
  /// One call of a function that is being inlined.
  struct Frame {
    const Function& function;
    std::map<std::string_view, Attribute> attributes;  // those that the call gives
    std::string prefix;                                // of the names of what the call makes
  };
  /// The names that are visible in a graph, or in one call of a function within it.
  struct Scope {
    Graph& graph;
    Scope* parent;       // of the enclosing graph; null in the main graph and in functions
    const Frame* frame;  // null outside of functions
    int depth;
    std::map<std::string_view, ValueId> names;  // ordered: hostile names cannot make it slow
  };

  static Opsets read_opsets(const std::vector<OpsetId>& imports);
  std::vector<NodeProto> parse_nodes(const std::vector<Bytes>& messages);
  void read_functions(const std::vector<Bytes>& messages);

  Graph read_graph(Bytes message, Scope* parent, const Frame* frame, int depth);
  void read_inputs(const GraphProto& proto, Scope& scope);
  void read_initializers(const GraphProto& proto, Scope& scope);
  void read_outputs(const GraphProto& proto, Scope& scope);
  void read_value_infos(const GraphProto& proto, Scope& scope);

  ValueId add_value(Scope& scope, std::string_view name);
  /// `by` gives what defines it, for the message: "by node 'a' (Relu)".
  template <class By>
  ValueId define(Scope& scope, std::string_view name, By&& by);
  /// The value that `name` stands for, captured from an enclosing graph where need be; nullptr where nothing defines
  /// it.
  const ValueId* find(Scope& scope, std::string_view name);

  void define_outputs(const NodeProto& proto, Scope& scope);
  void emit(const NodeProto& proto, Scope& scope);
  Node read_node(const NodeProto& proto, Scope& scope);
  std::vector<ValueId> read_node_inputs(const NodeProto& proto, Scope& scope);
  int version_of(const NodeProto& proto, const Scope& scope) const;
  void inline_function(const Function& function, const NodeProto& call, Scope& scope);
  void forward(ValueId from, ValueId to, Scope& scope);

  std::map<std::string_view, Attribute> read_attributes(const NodeProto& proto, Scope& scope);
  std::optional<Attribute> read_attribute(AttributeProto attribute, const NodeProto& node, Scope& scope);
  void check_depth(int depth, const NodeProto& node) const;

  const ModelProto& model_;
  TensorLoader& tensors_;
  Limits limits_;
  Opsets opsets_;
  std::vector<DefaultInput> defaults_;
  std::map<std::tuple<std::string_view, std::string_view, std::string_view>, Function> functions_;
};

}  // namespace inferkit::onnx
