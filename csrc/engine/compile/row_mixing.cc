#include "engine/compile/row_mixing.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/compile/compiler.h"
#include "graph/passes/pattern.h"
#include "graph/topological_sort.h"
#include "platform/float_environment.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

/// A compilation for another number of rows.
struct Sample {
  const Compiler* compiler;
  int64_t rows;
};

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
  /// `others`: whose nodes are the same.
  Search(Sample few, Sample many, std::vector<Sample> others)
      : few_(*few.compiler),
        many_(*many.compiler),
        few_rows_(few.rows),
        rows_(many.rows),
        others_(std::move(others)),
        read_(few_.graph().values.size(), false),
        outer_(few_.graph().values.size(), 1) {
    const Graph& graph = few_.graph();
    for (const ValueId id : graph.outputs) read_[static_cast<size_t>(id)] = true;
    for (const Node& node : stoppable(graph.nodes)) {
      for_each_read(node, [&](ValueId id) { read_[static_cast<size_t>(id)] = true; });
    }
  }

  bool mixes(const Node& node) {
    const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
    if (!def) return false;
    std::vector<Pair> inputs;
    std::vector<const TensorFacts*> in;
    for (const ValueId id : node.inputs) {
      inputs.push_back(pair(id));
      in.push_back(inputs.back().few);
    }
    if (!is_known(node)) {  // only a run tells what becomes of the rows
      bool rows_come = false;
      for_each_read(node, [&](ValueId id) {
        const Pair p = pair(id);
        rows_come = rows_come || (p.is_data() && p.growing() != 0);
      });
      return rows_come;
    }
    std::vector<const TensorFacts*> in_many;
    for (const Pair& p : inputs) in_many.push_back(p.many);
    std::vector<TensorFacts> given, given_many;
    for (const ValueId id : node.outputs) {
      const TensorFacts *facts = few_.facts(id), *more = many_.facts(id);
      given.push_back(facts ? *facts : kUnknownFacts);
      given_many.push_back(more ? *more : kUnknownFacts);
    }
    const NodeContext context(node, in, given), context_of_many(node, in_many, given_many);
    const auto grows = [](const Pair& p) { return p.is_data() && p.growing() != 0; };
    int64_t outer = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!grows(inputs[i])) continue;
      const int64_t own = outer_[static_cast<size_t>(node.inputs[i])];
      if (outer != 0 && own != outer) return true;  // rows lie otherwise in the one than in the other
      outer = own;
    }
    if (outer == 0) return false;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (tells_places(node, i, inputs, outer)) return true;
    }
    if (is_op(node, "Reshape") || is_op(node, "Flatten")) {
      outer = outer_after(inputs[0], pair(node.outputs[0]), outer);
      if (outer == 0) return true;
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!inputs[i].is_data() || (i == 1 && is_op(node, "CastLike"))) continue;  // of that, the type alone
      const Axes growing = inputs[i].growing();
      if (growing == 0) continue;
      // Sizes may be equal by chance for one number of rows.
      const auto mixed = static_cast<Axes>(mixed_axes(*def, context, i) | mixed_axes(*def, context_of_many, i));
      if ((growing & mixed) && !(i == 0 && outer == 1 && picks_own_rows(node, inputs))) return true;
      for (const ValueId id : node.outputs) {
        if (id == kNoValue || !read_[static_cast<size_t>(id)]) continue;
        const Pair out = pair(id);
        if (out.is_data() && out.grows_less_than(inputs[i])) return true;
      }
    }
    for (const ValueId id : node.outputs) {
      if (id == kNoValue) continue;
      outer_[static_cast<size_t>(id)] = outer;
      if (read_[static_cast<size_t>(id)] && !has_part_for_each(id)) return true;
    }
    return false;
  }

  /// The node that makes an output whose first dimension is not the number of rows, whose others are not the same for
  /// any, or which is a constant that tells a row its place; "" where there is none. Such a first dimension may be as
  /// long as some batch, which would then be cut into pieces of something else.
  std::string gives_other_rows() const {
    const Graph& graph = few_.graph();
    for (const ValueId id : graph.outputs) {
      const Pair y = pair(id);
      if (y.is_unknown()) continue;
      const auto has = [](const Shape& shape, int64_t rows) { return shape.rank() > 0 && shape[0] == rows; };
      const bool own = has(y.few->shape, few_rows_) && has(y.many->shape, rows_) && y.growing() == one_axis(0);
      if (own && !constant_tells_places(id, y)) continue;
      const auto makes = [&](const Node& node) { return std::ranges::find(node.outputs, id) != node.outputs.end(); };
      const auto it = std::ranges::find_if(graph.nodes, makes);
      return it == graph.nodes.end() ? "a node" : it->label();
    }
    return {};
  }

 private:
  /// Whether the axis of a value that grows is as many times as long as there are rows, whatever their number: what
  /// picks every other element may leave as many as there are rows, by chance.
  bool has_part_for_each(ValueId id) const {
    const Pair p = pair(id);
    if (!p.is_data() || std::popcount(p.growing()) != 1) return true;
    const auto axis = static_cast<size_t>(std::countr_zero(p.growing()));
    const int64_t whole = outer_[static_cast<size_t>(id)] * few_rows_, part = p.few->shape[axis] / whole;
    const auto fits = [&](const TensorFacts* facts, int64_t rows) {
      const int64_t all = outer_[static_cast<size_t>(id)] * rows;
      return !facts || facts->constant || facts->shape.rank() <= axis || facts->shape[axis] == part * all;
    };
    return fits(p.few, few_rows_) && fits(p.many, rows_) &&
           std::ranges::all_of(others_, [&](Sample s) { return fits(s.compiler->facts(id), s.rows); });
  }

  /// Whether an output follows from the number of rows, and is not the same for each of them.
  bool constant_tells_places(ValueId id, const Pair& y) const {
    if (!y.few->constant || !y.many->constant) return false;
    if (!repeats(*y.many->constant, y.growing(), 1) || differs(y)) return true;
    return std::ranges::any_of(others_, [&](Sample s) {
      const TensorFacts* facts = s.compiler->facts(id);
      return facts && facts->constant && differs({facts, y.many});
    });
  }

  /// All of them where only a run tells.
  static Axes mixed_axes(const OpDef& def, const NodeContext& context, size_t i) {
    try {
      return def.schema.mixed_axes ? def.schema.mixed_axes(context, i) : Axes{0};
    } catch (const NeedsValue&) {
      return kAllAxes;
    }
  }

  /// Whether shapes follow of all its inputs and outputs.
  bool is_known(const Node& node) const {
    const auto has = [&](ValueId id) { return id == kNoValue || !pair(id).is_unknown(); };
    const auto unread = [&](ValueId id) { return id != kNoValue && !read_[static_cast<size_t>(id)]; };
    return std::ranges::all_of(node.inputs, has) &&
           std::ranges::all_of(node.outputs, [&](ValueId id) { return has(id) || unread(id); });
  }

  /// What a node takes from a constant that differs from one number of rows to the next.
  enum class Use : uint8_t {
    kValue,  // its values are computed with
    kShape,  // its elements tell the sizes of the output, in which a difference shows
    kSizes,  // the same, or where parts begin: each is of one axis, and only that of the rows may differ
    kPicks,  // it tells which elements are taken, which the axes decide
  };
  static Use use_of(const Node& node, size_t i) {
    const auto is = [&](std::string_view name) { return is_op(node, name); };
    if ((i == 1 && (is("Reshape") || is("Expand") || is("Tile") || is("CastLike"))) ||
        (i == 0 && (is("Shape") || is("Size")))) {
      return Use::kShape;
    }
    if ((i == 2 && is("Slice")) || (i == 1 && (is("Pad") || is("Split") || is("CenterCropPad") || is("AffineGrid"))) ||
        ((i == 2 || i == 3) && is("Resize"))) {
      return Use::kSizes;
    }
    return i == 1 && (is("Gather") || is("GatherElements") || is("GatherND")) ? Use::kPicks : Use::kValue;
  }

  /// Whether input i of the node tells a row its place, or how many rows there are.
  bool tells_places(const Node& node, size_t i, const std::vector<Pair>& inputs, int64_t outer) const {
    const Pair& p = inputs[i];
    if (p.is_unknown() || !p.few->constant || !p.many->constant) return false;
    const Use use = use_of(node, i);
    if (use == Use::kShape) return false;
    if (use == Use::kPicks && (inputs[0].growing() & picked_axes(node, inputs)) != 0) return false;  // see mixed_axes
    if (use != Use::kSizes && p.growing() != 0 && !repeats(*p.many->constant, p.growing(), outer)) return true;
    const auto tells = [&](const Pair& pair) {
      return use == Use::kSizes ? differs_off_rows(node, pair, inputs) : differs(pair, outer);
    };
    return tells(p) || std::ranges::any_of(others_, [&](Sample other) {
             const TensorFacts* facts = other.compiler->facts(node.inputs[i]);
             return facts && facts->constant && tells({facts, p.many});
           });
  }

  /// Whether so many elements are the same.
  static bool is_same(DType dtype, const std::byte* a, const std::byte* b, size_t bytes) {
    if (dtype != DType::kString) return bytes == 0 || std::memcmp(a, b, bytes) == 0;
    const auto *from = reinterpret_cast<const std::string_view*>(a), *to = reinterpret_cast<const std::string_view*>(b);
    return std::equal(from, from + bytes / sizeof *from, to);
  }
  static const std::byte* bytes_of(const Tensor& t) { return static_cast<const std::byte*>(t.data); }

  /// Whether a constant that grows along `axes` holds the same for every row, `inside` times over.
  bool repeats(const Tensor& many, Axes axes, int64_t inside) const {
    const auto axis = static_cast<size_t>(std::countr_zero(axes));
    if (axes != one_axis(static_cast<int64_t>(axis)) || many.shape[axis] % (inside * rows_) != 0) return false;
    const int64_t outer = many.shape.elements(0, axis) * inside;
    if (outer == 0 || many.shape.elements() == 0) return true;
    const auto row = static_cast<size_t>(many.bytes()) / static_cast<size_t>(outer * rows_);
    const std::byte* at = bytes_of(many);
    for (int64_t o = 0; o < outer; ++o, at += row * static_cast<size_t>(rows_)) {
      for (int64_t r = 1; r < rows_; ++r) {
        if (!is_same(many.dtype, at, at + static_cast<size_t>(r) * row, row)) return false;
      }
    }
    return true;
  }

  /// Whether a constant is another one, or holds something else for its first row where it grows.
  static bool differs(const Pair& p, int64_t inside = 1) {
    const Tensor &few = *p.few->constant, &many = *p.many->constant;
    if (few.data == many.data) return false;
    if (few.dtype != many.dtype || few.shape.rank() != many.shape.rank()) return true;
    const Axes axes = p.growing();
    if (axes == 0) return !is_same(few.dtype, bytes_of(few), bytes_of(many), few.bytes());
    const auto axis = static_cast<size_t>(std::countr_zero(axes));
    const int64_t outer = few.shape.elements(0, axis) * inside;
    const int64_t lengths[] = {few.shape[axis], many.shape[axis]};
    if (axes != one_axis(static_cast<int64_t>(axis)) || lengths[0] % inside != 0 || lengths[1] % inside != 0)
      return true;
    if (outer == 0 || few.bytes() == 0 || many.bytes() == 0) return false;
    const size_t all[] = {few.bytes() / static_cast<size_t>(outer), many.bytes() / static_cast<size_t>(outer)};
    const size_t row = std::gcd(all[0], all[1]);  // or several of them
    for (int64_t o = 0; o < outer; ++o) {
      const auto at = static_cast<size_t>(o);
      if (!is_same(few.dtype, bytes_of(few) + at * all[0], bytes_of(many) + at * all[1], row)) return true;
    }
    return false;
  }

  /// The axes of input 0 whose indices a Gather, GatherElements or GatherND is given.
  static Axes picked_axes(const Node& node, const std::vector<Pair>& inputs) {
    const auto rank = static_cast<int64_t>(inputs[0].few->shape.rank());
    int64_t axis = int_attr(node, "axis", 0), count = 1;
    if (is_op(node, "GatherND")) {
      axis = int_attr(node, "batch_dims", 0);
      count = inputs[1].few->shape.empty() ? 0 : inputs[1].few->shape.back();
    }
    if (axis < 0) axis += rank;
    Axes out = 0;
    for (int64_t i = axis; i < std::min(axis + count, rank); ++i) out = static_cast<Axes>(out | one_axis(i));
    return out;
  }

  /// The axes that the elements of a constant of sizes are of, in their order; nullopt where that is not known.
  static std::optional<std::vector<int64_t>> axes_of(const Node& node, const std::vector<Pair>& inputs, int64_t rank) {
    if (is_op(node, "Split")) return std::vector<int64_t>{int_attr(node, "axis", 0)};
    const auto listed = node.attributes.find("axes");
    if (listed != node.attributes.end()) {
      const auto* axes = std::get_if<std::vector<int64_t>>(&listed->second);
      return axes ? std::optional(*axes) : std::nullopt;
    }
    constexpr size_t kAxes = 3;
    if ((is_op(node, "Slice") || is_op(node, "Pad")) && node.inputs.size() > kAxes && node.inputs[kAxes] != kNoValue) {
      const Tensor* given = inputs[kAxes].is_unknown() ? nullptr : inputs[kAxes].few->constant;
      if (!given || (given->dtype != DType::kI64 && given->dtype != DType::kI32)) return std::nullopt;
      std::vector<int64_t> axes;
      for (int64_t i = 0; i < given->shape.elements(); ++i)
        axes.push_back(given->dtype == DType::kI64 ? given->as<int64_t>()[i] : given->as<int32_t>()[i]);
      return axes;
    }
    std::vector<int64_t> all(static_cast<size_t>(rank));
    std::iota(all.begin(), all.end(), 0);
    return all;
  }

  /// Whether an element differs that is of another axis than one of the rows.
  static bool differs_off_rows(const Node& node, const Pair& p, const std::vector<Pair>& inputs) {
    if (!differs(p)) return false;
    const Tensor &few = *p.few->constant, &many = *p.many->constant;
    if (few.dtype != many.dtype || !(few.shape == many.shape) || few.shape.rank() != 1) return true;
    const auto rank = static_cast<int64_t>(inputs[0].few->shape.rank());
    const auto axes = axes_of(node, inputs, rank);
    if (!axes || axes->empty()) return true;
    const size_t size = dtype_size(few.dtype);
    for (size_t i = 0; i < static_cast<size_t>(few.shape[0]); ++i) {
      const auto* from = static_cast<const std::byte*>(few.data) + i * size;
      if (std::memcmp(from, static_cast<const std::byte*>(many.data) + i * size, size) == 0) continue;
      const int64_t axis = (*axes)[i % axes->size()];
      const int64_t at = axis < 0 ? axis + rank : axis;
      if (at < 0 || at >= rank || (inputs[0].growing() & one_axis(at)) == 0) return true;
    }
    return false;
  }

  /// Whether the indices of a Gather, constants that count the rows, pick for each row what is its own, as exporters
  /// write masks.
  bool picks_own_rows(const Node& node, const std::vector<Pair>& inputs) const {
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
    if (part < 0 || part >= step || length % rows_ != 0 || shape[axis] % rows_ != 0 || shape[axis] == 0) return false;
    const int64_t inner = shape.elements(axis + 1, end), each = shape[axis] / rows_;
    const auto* at = static_cast<const int64_t*>(index.many->constant->data);
    for (int64_t i = 0; i < shape.elements(0, end); ++i) {
      const int64_t picked = at[i * step + part] < 0 ? at[i * step + part] + length : at[i * step + part];
      if (picked / (length / rows_) != i / inner % shape[axis] / each) return false;
      // What it picks of its own row is at the same place as in the first one.
      for (int64_t other = 0; other < step; ++other) {
        if (other != part && at[i * step + other] != at[first_alike(i, inner, shape[axis], each) * step + other])
          return false;
      }
      const int64_t within = at[first_alike(i, inner, shape[axis], each) * step + part];
      if (picked % (length / rows_) != (within < 0 ? within + length : within) % (length / rows_)) return false;
    }
    return true;
  }

  /// The pick of the first row that stands where pick i does in its own.
  static int64_t first_alike(int64_t i, int64_t inner, int64_t picks, int64_t each) {
    const int64_t along = i / inner % picks;
    return i - (along - along % each) * inner;
  }

  /// How many times over the rows stand in the growing axis after a Reshape: it keeps the order of elements, so what
  /// lies in front of the rows is dimensions of their own, or the outer part of that axis (sequences of batches as
  /// one). 0 where it tears them: a dimension in front holds a part of each.
  int64_t outer_after(const Pair& in, const Pair& out, int64_t outer) const {
    if (out.is_unknown() || out.few->shape.rank() != out.many->shape.rank()) return 0;
    const Axes of_in = in.growing(), of_out = out.growing();
    if (std::popcount(of_in) != 1 || std::popcount(of_out) != 1) return 0;
    const auto from = static_cast<size_t>(std::countr_zero(of_in)), to = static_cast<size_t>(std::countr_zero(of_out));
    const int64_t before = in.many->shape.elements(0, from) * outer, after = out.many->shape.elements(0, to);
    if (after == 0 || before % after != 0) return 0;
    return out.many->shape[to] % (before / after * rows_) == 0 ? before / after : 0;
  }

  Pair pair(ValueId id) const { return {few_.facts(id), many_.facts(id)}; }

  const Compiler& few_;
  const Compiler& many_;
  const int64_t few_rows_, rows_;
  const std::vector<Sample> others_;
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

/// Whether a value and a node of the one are those of the other: where a condition that the shapes decide chose other
/// branches, they are not.
bool are_alike(const Graph& a, const Graph& b) {
  const auto same = [](const Node& x, const Node& y) {
    return x.op_type == y.op_type && x.domain == y.domain && x.inputs == y.inputs && x.outputs == y.outputs;
  };
  return a.values.size() == b.values.size() && std::ranges::equal(a.nodes, b.nodes, same);
}

}  // namespace

std::optional<bool> fits_any_rows(const Graph& graph, const RowSamples& samples, ModelCache& cache,
                                  const CompileOptions& options) {
  const FloatEnvironment ours;
  const auto agrees = [&](const std::vector<InputFacts>& rows) {
    try {
      Compiler(graph, rows, cache, options, /*fold=*/true).infer({});
      return true;
    } catch (const Stopped&) {
      throw;
    } catch (const Error&) {
      return false;
    }
  };
  if (!agrees(samples.one)) return std::nullopt;
  return agrees(samples.few) && agrees(samples.many);
}

std::string find_mixing_node(const Graph& graph, const RowSamples& samples, ModelCache& cache,
                             const CompileOptions& options) {
  const FloatEnvironment ours;
  const auto& [one, few, many, lots] = samples;
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
  Compiler c(graph, one, cache, options, /*fold=*/true), d(graph, lots, cache, options, /*fold=*/true);
  const auto rows_in = [&](const std::vector<InputFacts>& sample) {
    int64_t rows = 1;
    for (size_t i = 0; i < sample.size(); ++i) {
      if (!(many[i].shape == few[i].shape)) rows = sample[i].shape[0];
    }
    return rows;
  };
  std::vector<Sample> others;
  for (const auto& [other, rows] : {std::pair{&c, rows_in(one)}, {&d, rows_in(lots)}}) {
    try {
      other->infer({});
      others.push_back({other, rows});
    } catch (const Stopped&) {
      throw;
    } catch (const Error&) {  // too few of them, or too many
    }
  }
  std::vector<Sample> all = others;
  all.push_back({&b, rows_in(many)});
  for (const auto& [other, rows] : all) {
    if (are_alike(a.graph(), other->graph()) && a.imagined_trips() == other->imagined_trips()) continue;
    // The number of rows decides what is done with them.
    const auto chooses = [](const Node& node) {
      return is_op(node, "If") || is_op(node, "Loop") || is_op(node, "Scan");
    };
    const auto it = std::ranges::find_if(graph.nodes, chooses);
    return it == graph.nodes.end() ? "a node" : it->label();
  }
  Search search({&a, rows_in(few)}, all.back(), std::move(others));
  for (const Node& node : stoppable(a.graph().nodes)) {
    if (search.mixes(node)) return node.label();
  }
  return search.gives_other_rows();
}

}  // namespace inferkit
