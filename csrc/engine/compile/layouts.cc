// The second half of place: which values lie as blocks of sixteen channels. Convolutions are faster over blocks, and
// what turns one layout into the other is paid at the edges of a stretch of them alone.
#include "engine/compile/layouts.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "engine/compile/compiler.h"
#include "engine/compile/conv_shape.h"
#include "graph/passes/pattern.h"
#include "graph/topological_sort.h"
#include "platform/run_control.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

constexpr int kMostRounds = 8;
constexpr size_t kMostNear = 32;  // readers of a value, inputs of a node: of more the search leaves the layout as it is
constexpr double kNanosByChannel = 0.3;  // of an element, more than in planes
// An element that never is in memory, as measured, and from how many on it matters: fewer are still in L2 when they are
// read again.
constexpr double kNanosSaved = 0.17;
constexpr int64_t kManyElements = 128 << 10;
// Rows that a row of the output is summed up from. All of these are kept, or summed up again for each task: more would
// take longer than is saved.
constexpr int64_t kMostReach = 16;

/// Operators that do the same to every element, wherever it lies. Their inputs are of the output's shape, one value, or
/// one for each channel.
// clang-format off
constexpr std::string_view kElementwise[] = {
    "Abs", "Acos", "Acosh", "Add", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Celu", "Chain", "Clip", "Cos",
    "Cosh", "Div", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max",
    "Min", "Mish", "Mul", "Neg", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Silu", "Sin", "Sinh",
    "Softplus", "Softsign", "Sqrt", "Sub", "Swish", "Tan", "Tanh", "ThresholdedRelu"};
// clang-format on

bool is_elementwise(const Node& node) {
  return node.inputs.size() <= kMostNear && (node.domain.empty() || node.domain == kInternal) &&
         !node.attributes.contains("axis") && std::ranges::find(kElementwise, node.op_type) != std::end(kElementwise);
}

/// Where both layouts are possible, and differ.
bool has_blocks(const TensorFacts& f) {
  if (!may_have_blocks(f) || f.constant) return false;
  const int64_t area = f.shape.elements() == 0 ? 0 : f.shape.elements() / (f.shape[0] * f.shape[1]);
  return area > 1 && f.shape[1] % kBlockChannels == 0;
}

/// Of what is added to, or multiplied by, a tensor of shape `whole`: does it have a value for each channel?
bool is_by_channel(const Shape& shape, const Shape& whole) {
  if (shape.rank() > whole.rank() || shape.rank() + 1 < whole.rank()) return false;
  const size_t missing = whole.rank() - shape.rank();
  for (size_t d = missing; d < whole.rank(); ++d) {
    const int64_t size = shape[d - missing];
    if (d == 1 ? size != whole[1] : size != 1 && (d != 0 || size != whole[0])) return false;
  }
  return true;
}

}  // namespace

Shape blocks_view(const Shape& shape, const Shape& whole) {
  if (shape != whole && !is_by_channel(shape, whole)) return shape;
  std::vector<int64_t> out(shape.begin(), shape.end());
  out[out.size() - whole.rank() + 1] /= kBlockChannels;
  out.push_back(kBlockChannels);
  return Shape(out);
}

bool may_have_blocks(const TensorFacts& f) {
  return f.dtype == DType::kF32 && (f.shape.rank() == 3 || f.shape.rank() == 4);
}

double reorder_nanos(const Shape& shape) { return static_cast<double>(shape.elements()) * 0.3; }

/// As measured: a vector of the window, and a pixel of the output, in sixteen channels.
double pool_blocks_nanos(const Shape& shape, int64_t window_elements) {
  return static_cast<double>(shape.elements() / kBlockChannels) * (1 + 0.5 * static_cast<double>(window_elements));
}

/// The layouts of all nodes together: a local search, from all that can in blocks to where no node, and no two of which
/// one reads the other, are better off in the other layout.
class Layouts {
 public:
  explicit Layouts(Compiler& compiler) : c_(compiler) {
    const Graph& graph = c_.graph();
    nodes_.resize(graph.nodes.size());
    values_.resize(graph.values.size());
    for (const Node& node : stoppable(graph.nodes)) {
      for_each_read(node, [&](ValueId id) {
        if (id != kNoValue) ++value(id).reads;
      });
    }
    for (const PlanResult& result : c_.plan_->results) {
      if (result.value != kNoValue) value(result.value).plain_readers = 1;
    }
    for (const size_t n : stoppable_indices(nodes_.size())) {
      if (c_.choices_[n].lowering) add(n);
    }
  }

  void run() {
    if (!gains()) return;
    for (size_t n = 0; n < nodes_.size(); ++n) find_expansion(n);
    for (size_t n = 0; n < nodes_.size(); ++n) find_pool(n);
    bool changed = true;
    for (int round = 0; changed && round < kMostRounds; ++round) {
      changed = false;
      for (size_t n = 0; n < nodes_.size(); ++n) {
        RunControl::check();
        if (!movable(n)) continue;
        changed = move({n}) || changed;
        // Two that hand a value on may be better off together where neither is alone.
        for (const int r : values_[static_cast<size_t>(output(n))].readers) {
          const auto reader = static_cast<size_t>(r);
          if (movable(reader) && nodes_[reader].blocks == nodes_[n].blocks) changed = move({n, reader}) || changed;
        }
      }
    }
    for (size_t n = 0; n < nodes_.size(); ++n) write(n);
    for (size_t n = 0; n < nodes_.size(); ++n) add_residual(n);
    for (size_t n = 0; n < nodes_.size(); ++n) add_expansion(n);
    for (size_t n = 0; n < nodes_.size(); ++n) add_pool(n);
  }

 private:
  /// Is there a node that may write blocks where it reads none? Others read them where there is a use for them.
  bool gains() const {
    for (size_t n = 0; n < nodes_.size(); ++n) {
      if (nodes_[n].flexible && may_be_blocks(output(n))) return true;
    }
    return false;
  }

  struct Item {
    bool can = false, blocks = false, fixed = false;
    const Lowering* flexible = nullptr;  // of a convolution, whose input and output may lie differently
    bool alike = false;                  // a pool, say: it reads as it writes; or else it is elementwise
    double plain = 0;                    // what it costs in the way that was chosen
    double blocked[2][2] = {};           // and in blocks, by the layouts of its input and its output
    std::vector<ValueId> reads;          // in the layout that it works in, each once
    int expansion = -1;                  // the pointwise convolution that may become one step with it
    int pooled = -1;                     // the convolution that a pool may become one step with
    double saved = 0;                    // the time that either saves
  };
  struct Value {
    int maker = -1;
    size_t reads = 0;           // by all nodes, as often as they read it
    int plain_readers = 0;      // that have no choice; the plan's outputs, too
    std::vector<int> readers;   // that have one, each once
    size_t blocks_readers = 0;  // of these, those that are in blocks now
    size_t elementwise_blocks_readers = 0;
  };

  Value& value(ValueId id) { return values_[static_cast<size_t>(id)]; }
  ValueId output(size_t n) const { return c_.graph().nodes[n].outputs[0]; }
  bool may_be_blocks(ValueId id) const {
    const TensorFacts* f = c_.facts(id);
    return f && has_blocks(*f) && values_[static_cast<size_t>(id)].reads <= kMostNear;
  }
  bool elementwise(size_t n) const { return nodes_[n].can && !nodes_[n].flexible; }

  /// Can its input be in blocks, where its output, of another number of channels, cannot?
  bool reads_blocks(const Node& node) const {
    return node.outputs.size() == 1 && node.outputs[0] != kNoValue && node.inputs[0] != kNoValue &&
           c_.facts(node.outputs[0]) && may_be_blocks(node.inputs[0]);
  }

  /// Can node n work in blocks, element by element?
  bool can_elementwise(size_t n) const {
    const Node& node = c_.graph().nodes[n];
    if (!is_elementwise(node) || c_.choices_[n].lowering->device != DeviceKind::kCpu) return false;
    const Shape& shape = c_.known(output(n)).shape;
    bool some = false;
    for (const ValueId id : node.inputs) {
      const TensorFacts* f = c_.facts(id);
      if (!f) continue;
      const bool same = f->shape == shape && has_blocks(*f);
      if (!same && f->shape.elements() != 1 && !is_by_channel(f->shape, shape)) return false;
      some = some || same;
    }
    return some;
  }

  /// The way of node n that takes either layout and can run it, as far as it may be chosen.
  const Lowering* flexible_way(size_t n, const NodeContext& context) const {
    const Node& node = c_.graph().nodes[n];
    const Choice& choice = c_.choices_[n];
    const auto takes_blocks = [&](const Lowering& lowering) {
      return lowering.blocks_nanos && std::isfinite(lowering.blocks_nanos(context, true, false));
    };
    if (choice.why == Choice::Why::kForced || choice.why == Choice::Why::kOnly)
      return takes_blocks(*choice.lowering) ? choice.lowering : nullptr;
    if (rounds_operands(choice.lowering->precision)) return nullptr;
    const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
    for (const Lowering& lowering : def->lowerings) {
      if (!lowering.blocks_nanos || lowering.device != DeviceKind::kCpu) continue;
      if (lowering.cost(context).possible() && takes_blocks(lowering)) return &lowering;
    }
    return nullptr;
  }

  void add(size_t n) {
    const Node& node = c_.graph().nodes[n];
    Item& item = nodes_[n];
    const bool one = node.outputs.size() == 1 && node.outputs[0] != kNoValue && may_be_blocks(node.outputs[0]);
    if (one && can_elementwise(n)) {
      item.can = true;
      for (const ValueId id : node.inputs) {  // what is by channel takes a call for each pixel
        const TensorFacts* f = c_.facts(id);
        const Shape& whole = c_.known(node.outputs[0]).shape;
        if (f && f->shape.elements() != 1 && f->shape != whole)
          item.blocked[0][0] = static_cast<double>(whole.elements()) * kNanosByChannel;
      }
    } else if (can_alike(n)) {
      weigh_alike(n);
    } else if (!node.inputs.empty() && (one || reads_blocks(node))) {
      weigh(n);
    }
    for (const ValueId id : node.outputs) {
      if (id != kNoValue) value(id).maker = static_cast<int>(n);
    }
    const Shape* shape = one ? &c_.known(node.outputs[0]).shape : nullptr;
    for_each_read(node, [&](ValueId id) {
      if (id == kNoValue || !may_be_blocks(id)) return;
      const bool first = !node.inputs.empty() && node.inputs[0] == id;
      const bool choice = item.alike || (item.flexible ? first : item.can && c_.known(id).shape == *shape);
      if (!choice) {
        ++value(id).plain_readers;
      } else if (std::ranges::find(item.reads, id) == item.reads.end()) {
        item.reads.push_back(id);
        value(id).readers.push_back(static_cast<int>(n));
      }
    });
    set_blocks(n, item.can);
  }

  void set_blocks(size_t n, bool blocks) {
    Item& item = nodes_[n];
    if (item.blocks == blocks) return;
    item.blocks = blocks;
    for (const ValueId id : item.reads) {
      Value& v = value(id);
      v.blocks_readers += blocks ? 1 : -1;
      if (!item.flexible) v.elementwise_blocks_readers += blocks ? 1 : -1;
    }
  }

  /// Can all that node n reads and writes be in blocks?
  bool can_alike(size_t n) const {
    const Node& node = c_.graph().nodes[n];
    if (!c_.choices_[n].lowering->alike_cost) return false;
    if (node.inputs.size() > kMostNear || node.outputs.size() > kMostNear) return false;
    const auto is_blocks = [&](ValueId id) { return id != kNoValue && c_.facts(id) && may_be_blocks(id); };
    // The lengths of a Split and the scales of a Resize are no part of the data.
    const auto is_beside = [&](ValueId id) {
      return id == kNoValue || (c_.facts(id) && !may_have_blocks(c_.known(id)));
    };
    return std::ranges::all_of(node.outputs, is_blocks) && !node.inputs.empty() && is_blocks(node.inputs[0]) &&
           std::ranges::all_of(node.inputs, [&](ValueId id) { return is_beside(id) || is_blocks(id); });
  }

  void weigh_alike(size_t n) {
    Compiler::NodeFacts known = c_.node_facts(c_.graph().nodes[n]);
    const NodeContext context(c_.graph().nodes[n], known.in, known.out);
    const Lowering& way = *c_.choices_[n].lowering;
    const Cost cost = way.alike_cost(context);
    if (!cost.possible()) return;
    Item& item = nodes_[n];
    item.can = item.alike = true;
    item.blocked[0][0] = cost.nanos();
    item.plain = way.cost ? way.cost(context).nanos() : cost.nanos();
  }

  void weigh(size_t n) {
    Compiler::NodeFacts known = c_.node_facts(c_.graph().nodes[n]);
    const NodeContext context(c_.graph().nodes[n], known.in, known.out);
    const Lowering* const way = flexible_way(n, context);
    if (!way) return;
    Item& item = nodes_[n];
    item.can = true;
    item.flexible = way;
    item.fixed = c_.choices_[n].lowering == way;  // it takes what comes, in either layout
    if (!item.fixed) item.plain = c_.choices_[n].lowering->cost(context).nanos();
    for (int in = 0; in < 2; ++in) {
      for (int out = 0; out < 2; ++out) item.blocked[in][out] = way->blocks_nanos(context, in != 0, out != 0);
    }
  }

  bool in_blocks(ValueId id) const {
    const int maker = values_[static_cast<size_t>(id)].maker;
    return maker >= 0 && writes_blocks(static_cast<size_t>(maker));
  }
  /// Does node n write its output in blocks? A convolution does where somebody reads it so.
  bool writes_blocks(size_t n) const {
    const Item& item = nodes_[n];
    if (!item.can || !item.blocks) return false;
    if (!item.flexible) return true;
    return values_[static_cast<size_t>(output(n))].blocks_readers > 0;
  }

  double cost_of(size_t n) const {
    const Item& item = nodes_[n];
    if (!item.blocks) return item.plain;
    if (!item.flexible) return item.blocked[0][0] - (pools(n) ? item.saved : 0);
    return item.blocked[in_blocks(c_.graph().nodes[n].inputs[0])][writes_blocks(n)] - (expands(n) ? item.saved : 0);
  }
  /// Of turning the value into the other layout, where somebody wants it so. A convolution does that itself.
  double cost_of_value(ValueId id) const {
    if (!may_be_blocks(id)) return 0;
    const Value& v = values_[static_cast<size_t>(id)];
    const bool plain = v.plain_readers > 0 || v.blocks_readers < v.readers.size();
    const bool turned = in_blocks(id) ? plain : v.elementwise_blocks_readers > 0;
    return turned ? reorder_nanos(c_.known(id).shape) : 0;
  }
  bool movable(size_t n) const { return nodes_[n].can && !nodes_[n].fixed; }
  /// Moves these nodes to the other layout where that makes the plan cheaper, and to plain tensors where it makes no
  /// difference: what is of no use in blocks leaves them one by one.
  bool move(std::initializer_list<size_t> nodes) {
    near_nodes_.clear();
    near_values_.clear();
    for (const size_t n : nodes) add_near(n);
    for (auto* list : {&near_nodes_, &near_values_}) {
      std::ranges::sort(*list);
      list->erase(std::unique(list->begin(), list->end()), list->end());
    }
    const bool to_blocks = !nodes_[*nodes.begin()].blocks;
    const double before = cost_nearby();
    for (const size_t n : nodes) set_blocks(n, to_blocks);
    const double after = cost_nearby();
    if (to_blocks ? after < before : after <= before) return true;
    for (const size_t n : nodes) set_blocks(n, !to_blocks);
    return false;
  }
  /// All whose cost depends on the layout of node n.
  void add_near(size_t n) {
    near_nodes_.push_back(n);
    for (const ValueId id : c_.graph().nodes[n].outputs) {
      if (id == kNoValue) continue;
      near_values_.push_back(static_cast<size_t>(id));
      for (const int r : values_[near_values_.back()].readers) near_nodes_.push_back(static_cast<size_t>(r));
    }
    for (const ValueId id : c_.graph().nodes[n].inputs) {
      if (id == kNoValue) continue;
      near_values_.push_back(static_cast<size_t>(id));
      const int maker = values_[static_cast<size_t>(id)].maker;
      if (maker < 0) continue;
      near_nodes_.push_back(static_cast<size_t>(maker));
      // A convolution writes blocks where somebody reads them, which others that read the value see.
      for (const int r : values_[static_cast<size_t>(id)].readers) near_nodes_.push_back(static_cast<size_t>(r));
    }
  }
  double cost_nearby() const {
    double cost = 0;
    for (const size_t n : near_nodes_) cost += cost_of(n);
    for (const size_t id : near_values_) cost += cost_of_value(static_cast<ValueId>(id));
    return cost;
  }

  void write(size_t n) {
    const Item& item = nodes_[n];
    if (!item.can || !item.blocks) return;
    if (item.flexible) {
      Choice& choice = c_.choices_[n];
      if (choice.lowering != item.flexible) choice = {item.flexible, Choice::Why::kNeighbours};
    } else {
      c_.in_blocks_[n] = true;
    }
    if (!writes_blocks(n)) return;
    for (const ValueId id : c_.graph().nodes[n].outputs) {
      if (id != kNoValue) c_.value_layout_[static_cast<size_t>(id)] = Layout::kBlocks;
    }
  }

  /// The node that alone reads this value, and works in blocks; -1 where there is none.
  int only_reader(ValueId id) const {
    const Value& v = values_[static_cast<size_t>(id)];
    if (v.plain_readers > 0 || v.readers.size() != 1) return -1;
    const size_t reader = static_cast<size_t>(v.readers[0]);
    return elementwise(reader) && nodes_[reader].blocks ? v.readers[0] : -1;
  }
  /// Conv, Add and perhaps Relu -> one convolution, whose fourth input is added to its sums: where what is added is
  /// there before the convolution runs.
  void add_residual(size_t n) {
    const Node& conv = c_.graph().nodes[n];
    if (!nodes_[n].flexible || !nodes_[n].blocks || !writes_blocks(n) || conv.attributes.contains("activation")) return;
    if (int_attr(conv, "group", 1) != 1) return;  // depthwise ones take none
    const int add = only_reader(output(n));
    if (add < 0 || !is_op(add, "Add") || c_.graph().nodes[static_cast<size_t>(add)].inputs.size() != 2) return;
    const Node& sum = c_.graph().nodes[static_cast<size_t>(add)];
    const ValueId other = sum.inputs[sum.inputs[0] == output(n) ? 1 : 0];
    if (other == kNoValue || !in_blocks(other) || values_[static_cast<size_t>(other)].maker >= static_cast<int>(n))
      return;
    if (c_.known(other).shape != c_.known(output(n)).shape) return;
    const int relu = only_reader(sum.outputs[0]);
    Node fused = conv;
    fused.domain = kInternal;
    fused.inputs.resize(3, kNoValue);
    fused.inputs.push_back(other);
    fused.stands_for = conv.origins();
    for (const int part : {add, relu >= 0 && is_op(relu, "Relu") ? relu : -1}) {
      if (part < 0) continue;
      const Node& node = c_.graph().nodes[static_cast<size_t>(part)];
      if (part != add) fused.attributes["activation"] = std::string("Relu");
      std::ranges::copy(node.origins(), std::back_inserter(fused.stands_for));
      fused.outputs = node.outputs;
      c_.choices_[static_cast<size_t>(part)] = {};
    }
    c_.fused_.emplace(n, std::move(fused));
  }
  /// A pointwise convolution and the depthwise one that alone reads it can be one step, where what lies between is so
  /// large that memory is the slower part of both.
  void find_expansion(size_t n) {
    const Node& wide = c_.graph().nodes[n];
    if (!nodes_[n].flexible || c_.known(output(n)).shape.elements() < kManyElements) return;
    const Value& between = values_[static_cast<size_t>(output(n))];
    if (between.plain_readers > 0 || between.readers.size() != 1) return;
    Item& reader = nodes_[static_cast<size_t>(between.readers[0])];
    if (!reader.flexible || reader.flexible->name != std::string_view("channels")) return;
    Compiler::NodeFacts known = c_.node_facts(wide);
    const ConvShape s = conv_shape(NodeContext(wide, known.in, known.out));
    if (s.groups != 1 || !s.pointwise() || c_.known(output(n)).shape.rank() != 4) return;
    const Node& narrow = c_.graph().nodes[static_cast<size_t>(between.readers[0])];
    Compiler::NodeFacts read = c_.node_facts(narrow);
    const WindowDim rows = conv_shape(NodeContext(narrow, read.in, read.out)).window.dim[1];
    if ((rows.kernel - 1) * rows.dilation >= kMostReach) return;
    reader.expansion = static_cast<int>(n);
    reader.saved = static_cast<double>(c_.known(output(n)).shape.elements()) * kNanosSaved;
  }
  /// Would node n be one step with its expansion, as things lie now?
  bool expands(size_t n) const {
    const Item& item = nodes_[n];
    if (item.expansion < 0 || !item.blocks || !writes_blocks(n)) return false;
    const ValueId x = c_.graph().nodes[static_cast<size_t>(item.expansion)].inputs[0];
    return nodes_[static_cast<size_t>(item.expansion)].blocks && (in_blocks(x) || c_.known(x).shape[1] <= kMostPlanes);
  }
  void add_expansion(size_t n) {
    if (!expands(n)) return;
    const auto expansion = static_cast<size_t>(nodes_[n].expansion);
    const Node& wide = c_.graph().nodes[expansion];
    Node joined = c_.graph().nodes[n];
    joined.domain = kInternal;
    joined.inputs.resize(4, kNoValue);
    joined.inputs.insert(joined.inputs.end(), wide.inputs.begin(), wide.inputs.end());
    for (const std::string_view part : {"", "_alpha", "_beta"}) {
      const auto it = wide.attributes.find(cat("activation", part));
      if (it != wide.attributes.end()) joined.attributes[cat("expansion", part)] = it->second;
    }
    joined.stands_for = wide.origins();
    std::ranges::copy(c_.graph().nodes[n].origins(), std::back_inserter(joined.stands_for));
    c_.choices_[expansion] = {};
    c_.fused_.emplace(n, std::move(joined));
  }
  /// A pool that alone reads a convolution can be one step with it: what lies between is never whole in memory.
  void find_pool(size_t n) {
    Item& item = nodes_[n];
    if (!item.alike || !(is_op(static_cast<int>(n), "MaxPool") || is_op(static_cast<int>(n), "AveragePool"))) return;
    const ValueId between = c_.graph().nodes[n].inputs[0];
    const Value& v = values_[static_cast<size_t>(between)];
    if (v.maker < 0 || v.plain_readers > 0 || v.readers.size() != 1) return;
    const Item& conv = nodes_[static_cast<size_t>(v.maker)];
    if (!conv.flexible || conv.flexible->name != std::string_view("blocks")) return;
    const Shape& shape = c_.known(between).shape;
    if (shape.rank() != 4 || shape[3] == 1) return;  // of one column, the convolution takes its rows for one
    Compiler::NodeFacts read = c_.node_facts(c_.graph().nodes[n]);
    const WindowDim rows = pool_window(NodeContext(c_.graph().nodes[n], read.in, read.out)).dim[1];
    if ((rows.kernel - 1) * rows.dilation >= kMostReach) return;
    item.pooled = v.maker;
    if (shape.elements() >= kManyElements) item.saved = static_cast<double>(shape.elements()) * kNanosSaved;
  }
  /// Would node n be one step with the convolution that it reads, as things lie now?
  bool pools(size_t n) const {
    return nodes_[n].pooled >= 0 && nodes_[n].blocks && nodes_[static_cast<size_t>(nodes_[n].pooled)].blocks;
  }
  void add_pool(size_t n) {
    if (!pools(n)) return;
    const auto conv = static_cast<size_t>(nodes_[n].pooled);
    const Node& pool = c_.graph().nodes[n];
    const Node& sums = c_.graph().nodes[conv];
    Node joined = sums;
    Compiler::NodeFacts read = c_.node_facts(pool);
    const NodeContext context(pool, read.in, read.out);
    const Window window = pool_window(context);
    joined.domain = kInternal;
    joined.attributes["pool"] = pool.op_type;
    for (const auto& [name, d] : {std::pair{"pool_rows", window.dim[1]}, {"pool_columns", window.dim[2]}})
      joined.attributes[name] = std::vector<int64_t>{d.kernel, d.stride, d.dilation, d.pad_begin, d.pad_end};
    joined.attributes["pool_include_pad"] = context.attr_int("count_include_pad", 0);
    joined.stands_for = sums.origins();
    std::ranges::copy(pool.origins(), std::back_inserter(joined.stands_for));
    joined.outputs = pool.outputs;
    c_.choices_[n] = {};
    c_.fused_.emplace(conv, std::move(joined));
  }
  bool is_op(int n, std::string_view op) const {
    const Node& node = c_.graph().nodes[static_cast<size_t>(n)];
    return node.domain.empty() && node.op_type == op;
  }

  Compiler& c_;
  std::vector<Item> nodes_;
  std::vector<Value> values_;
  std::vector<size_t> near_nodes_, near_values_;  // of what is being moved
};

void Compiler::place_layouts() {
  value_layout_.assign(graph().values.size(), Layout::kPlain);
  in_blocks_.assign(graph().nodes.size(), false);
  if (options_.device->kind() == DeviceKind::kCpu) Layouts(*this).run();
}

}  // namespace inferkit
