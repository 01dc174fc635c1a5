// The state of one compilation, for the files that are its parts: compile.cc, infer.cc, place.cc, lower.cc,
// compile_stages.cc, and evaluate.cc and check_operators.cc beside them.
#pragma once
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/compile/compile.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/place.h"
#include "engine/compile/plan_limits.h"
#include "engine/compile/plan_notes.h"
#include "engine/compile/storage.h"
#include "engine/compile/time_budget.h"
#include "engine/plan/continuation.h"

namespace inferkit {

/// Throws Error(kModel) where the node has more or fewer inputs or outputs than its operator.
void check_arity(const Node& node, const OpSchema& schema);
/// Gives a value to each output that the operator always has and the node leaves out.
void name_required_outputs(Node& node, Graph& graph);
/// compile(), with folding or without it.
std::shared_ptr<const Plan> compile_as(const Graph& graph, std::span<const InputFacts> inputs, ModelCache& cache,
                                       const CompileOptions& options, bool fold);

/// A graph without sequences among its inputs: their tensors are inputs of their own, where they are known.
struct FlatGraph {
  FlatGraph(const Graph& from, std::span<const InputFacts> facts);

  Graph graph;
  std::vector<InputFacts> inputs;
  std::map<ValueId, ListFacts> lists;
  std::set<ValueId> held;
};

constexpr double kNanosPerStep = 15;   // to call it
constexpr double kCopiedPerNano = 10;  // bytes
// Of a device that launches: a kernel in a graph, and a graph with what goes in and out. Measured on an H100 by
// themselves, not in this engine; what it takes to let the caller of a run give the GIL up.
constexpr double kNanosPerLaunch = 1'000, kNanosPerGraph = 10'000;

class Compiler {
 public:
  /// `lists`: the sequences among the graph's inputs; those of `held` are looked into by what runs on values alone.
  Compiler(const Graph& graph, std::span<const InputFacts> inputs, ModelCache& cache, const CompileOptions& options,
           bool fold, std::map<ValueId, ListFacts> lists = {}, const std::set<ValueId>& held = {})
      : graph_(&graph),
        inputs_(inputs),
        cache_(cache),
        options_(options),
        fold_(fold),
        run_bytes_(options.max_run_bytes),
        facts_(graph.values.size()),
        lists_(std::move(lists)),
        held_(held),
        waits_(graph.values.size()) {
    for (const ValueId id : held_) waits_[static_cast<size_t>(id)] = true;
  }

  /// `forced`: nodes that must wait for the value of one of their inputs, by index.
  std::shared_ptr<const Plan> run(const std::map<size_t, size_t>& forced);

  /// Thrown where a lowering, rather than a shape rule, needs a value: all of it again, with the node deferred.
  struct Restart {
    size_t node, input;
  };

  // infer.cc
  /// The first part of run(); where nothing else is wanted, the facts can be asked for afterwards.
  void infer(const std::map<size_t, size_t>& forced);
  const Graph& graph() const { return *graph_; }
  /// What infer() was at when it threw; null where that was no node.
  const Node* reached() const { return reached_ < graph_->nodes.size() ? &graph_->nodes[reached_] : nullptr; }
  /// How often loops go round that were imagined, as far as that is known: see CompileOptions::imagined.
  const std::vector<int64_t>& imagined_trips() const { return trips_; }
  /// Null where nothing is known of it.
  const TensorFacts* facts(ValueId id) const {
    return id == kNoValue || !facts_[static_cast<size_t>(id)] ? nullptr : &*facts_[static_cast<size_t>(id)];
  }

 private:
  friend class NodeLowering;
  friend class ListNode;

  bool infer_node(size_t n);
  bool try_fold(const Node& node, std::span<const TensorFacts* const> in);
  void keep_folded(ValueId id, Tensor value);
  const TensorFacts& known(ValueId id) const;

  // place.cc
  /// What is known of a node's values.
  struct NodeFacts {
    std::vector<const TensorFacts*> in;
    std::vector<TensorFacts> out;
  };
  NodeFacts node_facts(const Node& node) const;
  void place();
  Choice choose(size_t n, const OpDef& def, const NodeContext& node, const LoweringWishes& wishes);
  bool is_made_on_host(const Node& node) const;
  // keep_on_host.cc
  std::vector<bool> fed_by_host() const;
  void keep_on_host(const LoweringWishes& wishes);
  bool moves_to_host(size_t n, const LoweringWishes& wishes);
  // layouts.cc
  friend class Layouts;
  void place_layouts();
  /// The device's way for an operator of our own that stands for several nodes; null where it has none.
  const Lowering* way_for_joined(std::string_view op) const;
  // join_layers.cc
  std::vector<size_t> layers_from(size_t n, const std::vector<int>& only_reader) const;
  Node joined(std::span<const size_t> layers) const;
  void join_layers();
  /// Runs what a family does for node n: a value that it needs starts the compilation anew, and what it does not
  /// support goes on the list.
  template <class F>
  void guarded(size_t n, F&& f) {
    try {
      f();
    } catch (const NeedsValue& needs) {
      throw Restart{n, needs.input()};
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupportedOp) throw;
      unsupported_.push_back(error.what());
    }
  }

  // fuse_attention.cc
  friend class AttentionFusion;
  void fuse_attention();

  // lower.cc
  void lower();
  void bring_inputs(const Node& node, bool on_host);
  static void view_in_blocks(NodeFacts& known, std::vector<TensorFacts>& views);
  void bind_outputs();
  void note_node(size_t n, const NodeFacts& known, size_t first_step, size_t scratch_bytes, double work);
  double nanos_per_step(bool on_host) const {
    return options_.device->kind() == DeviceKind::kCuda && !on_host ? kNanosPerLaunch : kNanosPerStep;
  }
  /// Of the step that was added last. `to` is empty for the copy that makes an output.
  void note_copy(ValueId id, std::optional<DeviceKind> to = {});
  /// Of the plan that is complete: what its steps launch.
  void note_kernels();
  /// Where the CPU runs steps of a plan for another device, which has memory of its own.
  bool is_on_host(const Lowering& lowering) const { return lowering.device != options_.device->kind(); }
  int32_t slot_of(ValueId id, bool on_host);
  int32_t constant_slot(const Tensor& tensor, bool on_host);
  int32_t steady_slot(int32_t slot, size_t node);
  void add_step(StepFn fn, const void* params, size_t bytes, std::span<const Ref> operands, size_t node, double work,
                bool on_host = false);

  // compile.cc
  void mark_needed();
  void finish();

  // compile_lists.cc
  void resolve(size_t n, const OpDef& def);
  bool is_list(ValueId id) const;
  bool passes_list(const Node& node, const OpDef& def);
  std::vector<Node> make_lists();

  // compile_stages.cc
  void own();
  void replace(size_t n, std::vector<Node> nodes);
  void replace_by_subgraph(size_t n, const Graph& subgraph);
  bool imagine(size_t n);
  void imagine_rounds(size_t n, const Graph& body, bool scan);
  void defer(size_t n, std::optional<size_t> input);
  bool reads_deferred(const Node& node) const;
  void split();
  void run_dynamically(Continuation& next, std::vector<bool>& later);
  void add_rest(Continuation& next, const std::vector<bool>& later);

  int output_of_model(size_t output) const;

  const Graph* graph_;
  std::shared_ptr<Graph> own_;  // *graph_, once subgraphs had to be put into it
  size_t added_ = 0;            // nodes that were put into it
  size_t reached_ = SIZE_MAX;   // the node that infer() is at
  std::vector<int64_t> trips_;  // of loops that were imagined
  std::vector<Node> pending_;   // during infer(), its nodes behind those, the next one last
  std::span<const InputFacts> inputs_;
  ModelCache& cache_;
  const CompileOptions options_;
  const bool fold_;
  RunBytes run_bytes_;
  std::vector<std::optional<TensorFacts>> facts_;     // by ValueId
  std::vector<std::shared_ptr<Tensor>> constants_;    // what folding made
  std::map<ValueId, ListFacts> lists_;                // sequences whose tensors are known
  size_t listed_ = 0;                                 // tensors in all of them
  std::set<ValueId> held_;                            // those that are only there when the plan runs
  std::vector<bool> waits_;                           // values that a later stage computes, by ValueId
  std::map<size_t, std::optional<size_t>> deferred_;  // nodes of a later stage; the input whose value each needs
  std::vector<bool> node_needed_;
  std::vector<bool> value_needed_;
  std::vector<Choice> choices_;                           // by node
  std::map<size_t, std::vector<Considered>> considered_;  // by node, where notes are taken
  std::map<size_t, std::string> lacks_;                   // by node: why it falls back, where notes are taken
  std::array<std::vector<int32_t>, 2> value_slot_;        // on the device, and [1] on the host, by ValueId
  std::vector<bool> made_on_host_;                        // by ValueId
  std::vector<bool> in_blocks_;           // by node: it reads blocks and writes them, and is no convolution
  std::map<size_t, Node> fused_;          // by node, what is lowered in its place and in that of nodes behind it
  std::vector<Layout> value_layout_;      // by ValueId, as its node writes it
  std::vector<int32_t> reordered_slot_;   // by ValueId, in the other layout; -1 where nobody has asked for it
  std::map<int32_t, int32_t> snapshots_;  // of foreign inputs, by their slots
  std::vector<std::string> unsupported_;
  Storage storage_;
  std::vector<std::vector<Ref>> step_refs_;
  size_t folded_bytes_ = 0;
  size_t scratch_bytes_ = 0;           // that lowerings have asked for so far
  TimeBudget fold_time_{100'000'000};  // what folding may still take
  double work_ = 0;
  std::shared_ptr<Plan> plan_ = std::make_shared<Plan>();
};

}  // namespace inferkit
