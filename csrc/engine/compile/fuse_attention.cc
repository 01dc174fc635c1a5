// Attention as exporters spell it out, softmax(scale Q K' + mask) V, becomes one step where the device has one: CUDA
// (decision 064). Nodes that only move what the products read or give are read through their strides, and are no steps
// of their own where nobody else wants what they make.
#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>

#include "engine/compile/compiler.h"
#include "engine/compile/strided.h"
#include "graph/topological_sort.h"
#include "platform/run_control.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

using Ints = std::vector<int64_t>;

/// Elements in the memory of value `of`, whose own elements lie in their order: `offset` + the sum of index x stride.
struct ViewOfValue {
  ValueId of = kNoValue;
  int64_t offset = 0;
  Shape shape;
  Strides strides{};
};

/// Where the elements of a node's output lie in the memory of its input.
struct MovedElements {
  int64_t offset = 0;
  Strides strides{};
};

constexpr std::array kSameOrder = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"};

/// As a list: the offset, then the strides.
Ints as_list(const ViewOfValue& view) {
  Ints out{view.offset};
  out.insert(out.end(), view.strides.begin(), view.strides.begin() + static_cast<std::ptrdiff_t>(view.shape.rank()));
  return out;
}

}  // namespace

class AttentionFusion {
 public:
  AttentionFusion(Compiler& compiler, const Lowering& way)
      : c_(compiler), way_(way), makers_(c_.graph().values.size(), -1), reads_(c_.graph().values.size()) {
    for (const size_t n : stoppable_indices(c_.graph().nodes.size())) {
      const Node& node = c_.graph().nodes[n];
      for (const ValueId id : node.outputs) {
        if (id != kNoValue) makers_[static_cast<size_t>(id)] = static_cast<int>(n);
      }
      if (c_.choices_[n].lowering) count(node, 1);
    }
    for (const PlanResult& result : c_.plan_->results) {
      if (result.value != kNoValue) ++reads_[static_cast<size_t>(result.value)];
      if (result.value != kNoValue) results_.insert(result.value);
    }
  }

  void run() {
    for (size_t n = 0; n < c_.graph().nodes.size(); ++n) {
      RunControl::check();
      if (const auto found = match(n)) fuse(*found);
    }
    if (!c_.fused_.empty()) drop_moves();
  }

 private:
  struct Found {
    std::vector<size_t> nodes;  // in their order; the last is the product with V
    ValueId mask = kNoValue;
    float scale = 1;
    std::string_view how = "";  // Mul, Div or nothing
  };

  const Node& node(size_t n) const { return c_.graph().nodes[n]; }
  const TensorFacts& facts(ValueId id) const { return c_.known(id); }
  void count(const Node& node, int by) {
    for_each_read(node, [&](ValueId id) { reads_[static_cast<size_t>(id)] += by; });
  }
  /// Is node n of this operator, and a step of the device that computes in float32?
  bool is_step(int n, std::string_view op) const {
    if (n < 0) return false;
    const Lowering* lowering = c_.choices_[static_cast<size_t>(n)].lowering;
    if (!lowering || c_.is_on_host(*lowering) || rounds_operands(lowering->precision)) return false;
    const Node& found = node(static_cast<size_t>(n));
    const TensorFacts* input = found.inputs.empty() ? nullptr : c_.facts(found.inputs[0]);
    return input && input->dtype == DType::kF32 && found.domain.empty() && found.op_type == op &&
           !c_.fused_.contains(static_cast<size_t>(n));
  }
  /// The node that makes `id`, where nothing but one node reads it; else -1.
  int only_made_for_one(ValueId id) const {
    const bool once = id != kNoValue && reads_[static_cast<size_t>(id)] == 1 && !results_.contains(id);
    return once ? makers_[static_cast<size_t>(id)] : -1;
  }
  std::optional<float> number(ValueId id) const {
    const TensorFacts* f = id == kNoValue ? nullptr : c_.facts(id);
    if (!f || !f->constant || f->dtype != DType::kF32 || f->shape.elements() != 1) return std::nullopt;
    return f->constant->as<float>()[0];
  }

  std::optional<Found> match(size_t last) const {
    Found found;
    const auto step_behind = [&](ValueId id, std::string_view op) {
      const int n = only_made_for_one(id);
      if (!is_step(n, op)) return false;
      found.nodes.insert(found.nodes.begin(), static_cast<size_t>(n));
      return true;
    };
    const auto input = [&](size_t i) { return node(found.nodes[0]).inputs[i]; };
    if (!is_step(static_cast<int>(last), "MatMul")) return std::nullopt;
    found.nodes = {last};
    if (!step_behind(input(0), "Softmax") || !folds_last_axis(found.nodes[0])) return std::nullopt;
    const Shape scores = facts(input(0)).shape;
    const auto is_whole = [&](ValueId id) { return facts(id).shape == scores; };
    if (step_behind(input(0), "Add")) {
      const size_t whole = makes_scores(input(0)) && is_whole(input(0)) ? 0 : 1;
      if (!is_whole(input(whole))) return std::nullopt;
      found.mask = input(1 - whole);
      if (!step_behind(input(whole), "Mul") && !step_behind(input(whole), "Div") &&
          !step_behind(input(whole), "MatMul"))
        return std::nullopt;
    } else if (!step_behind(input(0), "Mul") && !step_behind(input(0), "Div") && !step_behind(input(0), "MatMul")) {
      return std::nullopt;
    }
    if (const std::string_view op = node(found.nodes[0]).op_type; op != "MatMul") {
      const size_t whole = op == "Mul" && number(input(0)) ? 1 : 0;
      const auto scale = number(input(1 - whole));
      if (!scale || !is_whole(input(whole)) || !step_behind(input(whole), "MatMul")) return std::nullopt;
      found.scale = *scale;
      found.how = op;
    }
    return found;
  }
  /// Of the two that are added: is this one made by what makes scores?
  bool makes_scores(ValueId id) const {
    const int n = only_made_for_one(id);
    return is_step(n, "Mul") || is_step(n, "Div") || is_step(n, "MatMul");
  }
  bool folds_last_axis(size_t n) const {
    Compiler::NodeFacts known = c_.node_facts(node(n));
    const NodeContext context(node(n), known.in, known.out);
    const auto rank = static_cast<int64_t>(facts(node(n).inputs[0]).shape.rank());
    return rank > 0 && context.attr_axis(node(n).version >= 13 ? -1 : std::min<int64_t>(1, rank - 1), rank) == rank - 1;
  }

  void fuse(const Found& found) {
    const size_t last = found.nodes.back();
    const Node &product = node(found.nodes[0]), &mix = node(last);
    const ValueId q = product.inputs[0], k = product.inputs[1], v = mix.inputs[1];
    const Shape &scores = facts(product.outputs[0]).shape, &y = facts(mix.outputs[0]).shape;
    const size_t rank = scores.rank();
    if (rank < 2 || y.rank() != rank || facts(q).shape.rank() < 2 || facts(k).shape.rank() < 2 ||
        facts(v).shape.rank() < 2)
      return;
    const auto matrices = [](const Shape& shape) { return Shape(shape.dims().first(shape.rank() - 2)); };
    // Of products with a B of the file the layer's columns decide how they are summed.
    if (matrices(scores) != matrices(y) || facts(k).is_of_file() || facts(v).is_of_file()) return;
    const int64_t size = facts(q).shape.back();
    if (size == 0 || scores.elements() == 0 || y.elements() == 0) return;  // places are found by dividing by strides

    // What the products read, each as [batch..., row, column]; the keys turned.
    std::array<ViewOfValue, 4> views;
    const std::array<ValueId, 4> ids = {q, k, v, found.mask};
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] == kNoValue) continue;
      Shape whole = i == 2 ? y : scores;
      if (i != 3) {
        const Shape& own = facts(ids[i]).shape;
        whole[rank - 2] = own[own.rank() - 2];
        whole[rank - 1] = own.back();
      }
      views[i] = {ids[i], 0, whole, broadcast_strides(facts(ids[i]).shape, whole)};
      if (i != 3) read_where_it_comes_from(views[i], last, /*in_rows=*/i == 2);
    }
    std::swap(views[1].strides[rank - 2], views[1].strides[rank - 1]);

    // What it gives, perhaps as the Transpose behind it would.
    ViewOfValue out{mix.outputs[0], 0, y, y.strides()};
    Node fused;
    fused.outputs = mix.outputs;
    const int behind = transpose_behind(mix.outputs[0]);
    if (behind >= 0) {
      const Node& transpose = node(static_cast<size_t>(behind));
      const Ints perm = perm_of(static_cast<size_t>(behind));
      const Strides strides = facts(transpose.outputs[0]).shape.strides();
      for (size_t i = 0; i < rank; ++i) out.strides[static_cast<size_t>(perm[i])] = strides[i];
      fused.outputs = transpose.outputs;
    }

    fused.op_type = "Attention";
    fused.domain = kInternal;
    fused.name = mix.name;
    fused.version = 1;
    for (const ViewOfValue& view : views) {
      if (view.of != kNoValue) fused.inputs.push_back(view.of);
    }
    const Shape batch = matrices(scores);
    fused.attributes = {{"batch", Ints(batch.begin(), batch.end())},
                        {"sizes", Ints{scores[rank - 2], scores[rank - 1], size, y.back()}},
                        {"scaled", std::string(found.how)},
                        {"scale", found.scale},
                        {"q", as_list(views[0])},
                        {"k", as_list(views[1])},
                        {"v", as_list(views[2])},
                        {"mask", found.mask == kNoValue ? Ints() : as_list(views[3])},
                        {"y", as_list(out)}};
    Compiler::NodeFacts known = c_.node_facts(fused);
    if (!way_.cost(NodeContext(fused, known.in, known.out)).possible()) return;

    std::vector<size_t> gone = found.nodes;
    if (behind >= 0) gone.push_back(static_cast<size_t>(behind));
    for (const size_t n : gone) {
      std::ranges::copy(node(n).origins(), std::back_inserter(fused.stands_for));
      count(node(n), -1);
      c_.choices_[n] = {};
      c_.considered_.erase(n);
    }
    count(fused, 1);
    c_.choices_[last] = {&way_, Choice::Why::kOnly};
    c_.fused_.emplace(last, std::move(fused));
  }

  /// The Transpose on the device that alone reads `id`; else -1.
  int transpose_behind(ValueId id) const {
    if (only_made_for_one(id) < 0) return -1;
    for (size_t n = static_cast<size_t>(makers_[static_cast<size_t>(id)]); n < c_.graph().nodes.size(); ++n) {
      if (!is_step(static_cast<int>(n), "Transpose") || node(n).inputs[0] != id) continue;
      return static_cast<int>(n);
    }
    return -1;
  }
  Ints perm_of(size_t n) const {
    Compiler::NodeFacts known = c_.node_facts(node(n));
    const NodeContext context(node(n), known.in, known.out);
    const auto rank = static_cast<int64_t>(facts(node(n).inputs[0]).shape.rank());
    Ints perm = context.attr_ints("perm");
    for (int64_t& axis : perm) axis = context.resolve_axis(axis, rank);
    for (int64_t i = rank; perm.size() < static_cast<size_t>(rank);) perm.push_back(--i);
    return perm;
  }

  /// Follows the view up through nodes that only move elements, for fused node `reader`.
  void read_where_it_comes_from(ViewOfValue& view, size_t reader, bool in_rows) {
    for (;;) {
      const int n = makers_[static_cast<size_t>(view.of)];
      if (n < 0 || facts(view.of).constant) return;
      const Node& maker = node(static_cast<size_t>(n));
      if (!is_step(n, maker.op_type)) return;
      const ValueId from = maker.inputs[0];
      if (std::ranges::find(kSameOrder, maker.op_type) != kSameOrder.end()) {
        view.of = from;
      } else if (const auto moved = moved_by(static_cast<size_t>(n), view.of); moved) {
        ViewOfValue further = view;
        // A kernel reads the columns of V as neighbours.
        if (!moves(further, *moved) || (in_rows && further.strides[further.shape.rank() - 1] > 1)) return;
        view = further;
        view.of = from;
      } else {
        return;
      }
      passed_.emplace(static_cast<size_t>(n), reader);
    }
  }
  /// For Transpose, Gather of one index, and Split.
  std::optional<MovedElements> moved_by(size_t n, ValueId output) const {
    const Node& maker = node(n);
    const Shape& shape = facts(maker.inputs[0]).shape;
    const auto rank = static_cast<int64_t>(shape.rank());
    const Strides own = shape.strides();
    Compiler::NodeFacts known = c_.node_facts(maker);
    const NodeContext context(maker, known.in, known.out);
    MovedElements out;
    if (maker.op_type == "Transpose") {
      const Ints perm = perm_of(n);
      for (size_t i = 0; i < perm.size(); ++i) out.strides[i] = own[static_cast<size_t>(perm[i])];
      return out;
    }
    if (maker.op_type == "Gather") {
      const TensorFacts& index = facts(maker.inputs[1]);
      if (!index.constant || index.shape.elements() != 1 || index.shape.rank() > 1) return std::nullopt;
      const auto axis = static_cast<size_t>(context.attr_axis(0, rank));
      int64_t at = context.const_ints(1)[0];
      if (at < 0) at += shape[axis];
      if (at < 0 || at >= shape[axis]) return std::nullopt;  // an error of the run
      out.offset = at * own[axis];
      size_t to = 0;
      for (size_t i = 0; i < shape.rank(); ++i) {
        if (i != axis || index.shape.rank() == 1) out.strides[to++] = i == axis ? 0 : own[i];
      }
      return out;
    }
    if (maker.op_type == "Split") {
      const auto axis = static_cast<size_t>(context.attr_axis(0, rank));
      for (const ValueId id : maker.outputs) {
        if (id == output) {
          out.strides = own;
          return out;
        }
        if (id == kNoValue) return std::nullopt;  // its size is not known here
        out.offset += facts(id).shape[axis] * own[axis];
      }
    }
    return std::nullopt;
  }
  /// The view in the memory of the node's input, where each of its dimensions runs within one of the output's.
  bool moves(ViewOfValue& view, const MovedElements& moved) const {
    const Shape& shape = facts(view.of).shape;
    const Strides own = shape.strides();
    Ints last(shape.rank());  // index that is reached
    ViewOfValue out = view;
    out.offset = moved.offset;
    int64_t rest = view.offset;
    for (size_t d = 0; d < shape.rank(); ++d) {
      last[d] = rest / own[d];
      rest %= own[d];
      out.offset += last[d] * moved.strides[d];
    }
    for (size_t i = 0; i < view.shape.rank(); ++i) {
      out.strides[i] = 0;
      if (view.shape[i] == 1 || view.strides[i] == 0) continue;
      size_t d = 0;
      while (d < shape.rank() && (shape[d] == 1 || own[d] > view.strides[i])) ++d;
      if (d == shape.rank() || view.strides[i] % own[d] != 0) return false;
      const int64_t step = view.strides[i] / own[d];
      last[d] += step * (view.shape[i] - 1);
      if (last[d] >= shape[d]) return false;
      out.strides[i] = step * moved.strides[d];
    }
    view = out;
    return true;
  }

  /// Nodes that views have passed by, and that nobody else reads, are no steps.
  void drop_moves() {
    for (auto it = passed_.rbegin(); it != passed_.rend(); ++it) {  // readers before what they read
      const auto [n, reader] = *it;
      if (!c_.fused_.contains(reader) || !c_.choices_[n].lowering) continue;
      const Node& moving = node(n);
      const bool read = std::ranges::any_of(
          moving.outputs, [&](ValueId id) { return id != kNoValue && reads_[static_cast<size_t>(id)] > 0; });
      if (read) continue;
      count(moving, -1);
      c_.choices_[n] = {};
      c_.considered_.erase(n);
      Node& fused = c_.fused_.at(reader);
      const auto origins = moving.origins();
      fused.stands_for.insert(fused.stands_for.begin(), origins.begin(), origins.end());
    }
  }

  Compiler& c_;
  const Lowering& way_;
  std::vector<int> makers_;  // by ValueId
  std::vector<int> reads_;   // by ValueId, of nodes that are steps
  std::set<ValueId> results_;
  std::map<size_t, size_t> passed_;  // nodes that only move, and the first fused one that reads through each
};

void Compiler::fuse_attention() {
  if (const Lowering* const way = way_for_joined("Attention")) AttentionFusion(*this, *way).run();
}

}  // namespace inferkit
