#include "engine/compile/row_mixing.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>
#include <vector>

#include "engine/compile/compiler.h"
#include "graph/passes/pattern.h"
#include "graph/topological_sort.h"
#include "platform/float_environment.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

/// What a node's input or output is in both compilations.
struct Pair {
  const TensorFacts* few = nullptr;
  const TensorFacts* many = nullptr;

  /// Whether it is there, and data of the run in both.
  bool is_data() const { return few && many && !few->constant && !many->constant; }
  bool is_unknown() const { return !few || !many; }

  Axes growing() const {
    Axes out = 0;
    const size_t rank = few->shape.rank();
    if (rank != many->shape.rank()) return 0;
    for (size_t i = 0; i < rank; ++i) {
      if (few->shape[i] != many->shape[i]) out = static_cast<Axes>(out | 1u << i);
    }
    return out;
  }
  /// Whether this grows by a smaller factor than `from` does. Numbers of elements are below 2^63: their products fit.
  bool grows_less_than(const Pair& from) const {
    const auto count = [](const TensorFacts* facts) { return static_cast<__int128>(facts->shape.elements()); };
    return count(many) * count(from.few) < count(few) * count(from.many);
  }
};

class Search {
 public:
  Search(const Compiler& few, const Compiler& many)
      : few_(few), many_(many), read_(few.graph().values.size(), false), outer_(few.graph().values.size(), 1) {
    const Graph& graph = few.graph();
    for (const ValueId id : graph.outputs) read_[static_cast<size_t>(id)] = true;
    for (const Node& node : stoppable(graph.nodes)) {
      for_each_read(node, [&](ValueId id) { read_[static_cast<size_t>(id)] = true; });
    }
  }

  /// `rows`: of the larger compilation.
  bool mixes(const Node& node, int64_t rows) {
    const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
    if (!def) return false;
    std::vector<Pair> inputs;
    std::vector<const TensorFacts*> in;
    for (const ValueId id : node.inputs) {
      inputs.push_back(pair(id));
      if (id != kNoValue && inputs.back().is_unknown()) return false;
      in.push_back(inputs.back().few);
    }
    std::vector<TensorFacts> given;
    for (const ValueId id : node.outputs) {
      const TensorFacts* facts = few_.facts(id);
      given.push_back(facts ? *facts : kUnknownFacts);
    }
    const NodeContext context(node, in, given);
    const auto grows = [](const Pair& p) { return p.is_data() && p.growing() != 0; };
    int64_t outer = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!grows(inputs[i])) continue;
      const int64_t own = outer_[static_cast<size_t>(node.inputs[i])];
      if (outer != 0 && own != outer) return true;  // rows lie otherwise in the one than in the other
      outer = own;
    }
    if (outer == 0) return false;
    if (computes(node) && std::ranges::any_of(inputs, [&](const Pair& p) { return tells_places(p, outer, rows); })) {
      return true;
    }
    if (is_op(node, "Reshape") || is_op(node, "Flatten")) {
      outer = outer_after(inputs[0], pair(node.outputs[0]), outer, rows);
      if (outer == 0) return true;
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!inputs[i].is_data() || (i == 1 && is_op(node, "CastLike"))) continue;  // of that, the type alone
      const Axes growing = inputs[i].growing();
      if (growing == 0) continue;
      if ((growing & mixed_axes(*def, context, i)) && !(i == 0 && outer == 1 && picks_own_rows(node, inputs, rows))) {
        return true;
      }
      for (const ValueId id : node.outputs) {
        if (id == kNoValue || !read_[static_cast<size_t>(id)]) continue;
        const Pair out = pair(id);
        if (out.is_data() && out.grows_less_than(inputs[i])) return true;
      }
    }
    for (const ValueId id : node.outputs) {
      if (id != kNoValue) outer_[static_cast<size_t>(id)] = outer;
    }
    return false;
  }

 private:
  /// All of them where only a run tells.
  static Axes mixed_axes(const OpDef& def, const NodeContext& context, size_t i) {
    try {
      return def.schema.mixed_axes ? def.schema.mixed_axes(context, i) : Axes{0};
    } catch (const NeedsValue&) {
      return kAllAxes;
    }
  }

  /// Whether the values of its inputs meet, not only their shapes.
  static bool computes(const Node& node) {
    static constexpr std::string_view kNames[] = {
        "Add",   "Sub",    "Mul",    "Div",   "Pow",   "Mod",   "Min",  "Max",         "Mean",    "Sum",
        "Where", "Concat", "MatMul", "Gemm",  "PRelu", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual",
        "And",   "Or",     "Xor",    "Einsum"};
    static constexpr std::string_view kNormalizations[] = {"LayerNormalization", "RMSNormalization"};  // their scale
    const auto is = [&](std::string_view name) { return is_op(node, name); };
    return std::ranges::any_of(kNames, is) || std::ranges::any_of(kNormalizations, is);
  }

  /// A constant that is another one for another number of rows: unless it only repeats what it holds for one of them,
  /// it tells a row where it stands, or how many there are.
  static bool tells_places(const Pair& p, int64_t inside, int64_t rows) {
    if (p.is_unknown() || !p.few->constant || !p.many->constant || p.few->dtype == DType::kString) return false;
    const Tensor &few = *p.few->constant, &many = *p.many->constant;
    if (few.data == many.data || few.shape.rank() != many.shape.rank()) return false;
    const Axes axes = p.growing();
    if (few.dtype != many.dtype) return true;
    if (axes == 0) return few.bytes() != 0 && std::memcmp(few.data, many.data, few.bytes()) != 0;
    const auto axis = static_cast<size_t>(std::countr_zero(axes));
    if (axes != one_axis(static_cast<int64_t>(axis)) || many.shape[axis] % (inside * rows) != 0) return true;
    const int64_t outer = many.shape.elements(0, axis) * inside;
    if (outer == 0 || many.shape.elements() == 0) return false;
    const auto row = static_cast<size_t>(many.bytes()) / static_cast<size_t>(outer * rows);
    const auto* at = static_cast<const std::byte*>(many.data);
    for (int64_t o = 0; o < outer; ++o, at += row * static_cast<size_t>(rows)) {
      for (int64_t r = 1; r < rows; ++r) {
        if (std::memcmp(at, at + static_cast<size_t>(r) * row, row) != 0) return true;
      }
    }
    return false;
  }

  /// Whether the indices of a Gather, constants that count the rows, pick for each row what is its own, as exporters
  /// write masks.
  static bool picks_own_rows(const Node& node, const std::vector<Pair>& inputs, int64_t rows) {
    const bool nd = is_op(node, "GatherND");
    if (!nd && !is_op(node, "Gather") && !is_op(node, "GatherElements")) return false;
    const Pair &data = inputs[0], &index = inputs[1];
    if (index.is_unknown() || !index.few->constant || !index.many->constant || index.many->dtype != DType::kI64)
      return false;
    const Axes of_data = data.growing(), of_index = index.growing();
    if (std::popcount(of_data) != 1 || std::popcount(of_index) != 1) return false;
    const Shape& shape = index.many->shape;
    const auto axis = static_cast<size_t>(std::countr_zero(of_index));
    const size_t end = shape.rank() - (nd ? 1 : 0);  // of its dimensions, those of the picks
    if (axis >= end) return false;
    const int64_t length = data.many->shape[static_cast<size_t>(std::countr_zero(of_data))];
    const int64_t step = nd ? shape.back() : 1;
    const int64_t part = nd ? std::countr_zero(of_data) - int_attr(node, "batch_dims", 0) : 0;
    if (part < 0 || part >= step || length % rows != 0 || shape[axis] % rows != 0 || shape[axis] == 0) return false;
    const int64_t inner = shape.elements(axis + 1, end), each = shape[axis] / rows;
    const auto* at = static_cast<const int64_t*>(index.many->constant->data);
    for (int64_t i = 0; i < shape.elements(0, end); ++i) {
      const int64_t picked = at[i * step + part] < 0 ? at[i * step + part] + length : at[i * step + part];
      if (picked / (length / rows) != i / inner % shape[axis] / each) return false;
    }
    return true;
  }

  /// How many times over the rows stand in the growing axis after a Reshape: it keeps the order of elements, so what
  /// lies in front of the rows is dimensions of their own, or the outer part of that axis (sequences of batches as
  /// one). 0 where it tears them: a dimension in front holds a part of each.
  static int64_t outer_after(const Pair& in, const Pair& out, int64_t outer, int64_t rows) {
    if (out.is_unknown() || out.few->shape.rank() != out.many->shape.rank()) return 0;
    const Axes of_in = in.growing(), of_out = out.growing();
    if (std::popcount(of_in) != 1 || std::popcount(of_out) != 1) return 0;
    const auto from = static_cast<size_t>(std::countr_zero(of_in)), to = static_cast<size_t>(std::countr_zero(of_out));
    const int64_t before = in.many->shape.elements(0, from) * outer, after = out.many->shape.elements(0, to);
    if (after == 0 || before % after != 0) return 0;
    return out.many->shape[to] % (before / after * rows) == 0 ? before / after : 0;
  }

  Pair pair(ValueId id) const { return {few_.facts(id), many_.facts(id)}; }

  const Compiler& few_;
  const Compiler& many_;
  std::vector<bool> read_;
  std::vector<int64_t> outer_;  // how many times over the rows stand in a value's growing axis
};

/// A node that makes the tensors of a sequence of the rows, which may then be combined in any way; "" where there is
/// none.
std::string splits_rows(const Graph& graph, const Compiler& few, const Compiler& many) {
  for (const Node& node : stoppable(graph.nodes)) {
    if (!is_op(node, "SplitToSequence") || node.inputs.empty() || node.inputs[0] == kNoValue) continue;
    const Pair x{few.facts(node.inputs[0]), many.facts(node.inputs[0])};
    if (x.is_unknown()) continue;
    const auto rank = static_cast<int64_t>(x.few->shape.rank());
    const int64_t axis = int_attr(node, "axis", 0);
    if (axis >= -rank && axis < rank && (x.growing() >> (axis < 0 ? axis + rank : axis) & 1) != 0) return node.label();
  }
  return {};
}

/// The node that makes an output whose first dimension is not the number of rows, or whose others are not the same for
/// any; "" where there is none. Such a first dimension may be as long as some batch, which would then be cut into
/// pieces of something else.
std::string gives_other_rows(const Compiler& few, const Compiler& many, int64_t few_rows, int64_t many_rows) {
  const Graph& graph = few.graph();
  for (const ValueId id : graph.outputs) {
    const Pair y{few.facts(id), many.facts(id)};
    if (y.is_unknown()) continue;
    const auto has = [](const Shape& shape, int64_t rows) { return shape.rank() > 0 && shape[0] == rows; };
    if (has(y.few->shape, few_rows) && has(y.many->shape, many_rows) && y.growing() == one_axis(0)) continue;
    const auto makes = [&](const Node& node) { return std::ranges::find(node.outputs, id) != node.outputs.end(); };
    const auto it = std::ranges::find_if(graph.nodes, makes);
    return it == graph.nodes.end() ? "a node" : it->label();
  }
  return {};
}

/// Whether a value and a node of the one are those of the other: where a condition that the shapes decide chose other
/// branches, they are not.
bool are_alike(const Graph& a, const Graph& b) {
  const auto same = [](const Node& x, const Node& y) {
    return x.op_type == y.op_type && x.domain == y.domain && x.inputs == y.inputs && x.outputs == y.outputs;
  };
  return a.values.size() == b.values.size() && std::ranges::equal(a.nodes, b.nodes, same);
}

}  // namespace

std::string find_mixing_node(const Graph& graph, std::span<const InputFacts> one, std::span<const InputFacts> few,
                             std::span<const InputFacts> many, ModelCache& cache, const CompileOptions& options) {
  const FloatEnvironment ours;
  Compiler a(graph, few, cache, options, /*fold=*/true), b(graph, many, cache, options, /*fold=*/true);
  for (Compiler* several : {&a, &b}) {
    try {
      several->infer({});
    } catch (const Stopped&) {
      throw;
    } catch (const Error&) {
      Compiler(graph, one, cache, options, /*fold=*/true).infer({});  // throws where the sizes are at fault
      return several->reached() ? several->reached()->label() : "a node";
    }
  }
  if (std::string label = splits_rows(graph, a, b); !label.empty()) return label;
  if (!are_alike(a.graph(), b.graph())) {  // the number of rows decides what is done with them
    const auto chooses = [](const Node& node) { return is_op(node, "If"); };
    const auto it = std::ranges::find_if(graph.nodes, chooses);
    return it == graph.nodes.end() ? "a node" : it->label();
  }
  Search search(a, b);
  int64_t few_rows = 1, rows = 1;
  for (size_t i = 0; i < many.size(); ++i) {
    if (many[i].shape == few[i].shape) continue;
    few_rows = few[i].shape[0];
    rows = many[i].shape[0];
  }
  for (const Node& node : stoppable(a.graph().nodes)) {
    if (search.mixes(node, rows)) return node.label();
  }
  return gives_other_rows(a, b, few_rows, rows);
}

}  // namespace inferkit
