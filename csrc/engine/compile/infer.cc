// The first part of a compilation: dtypes and shapes from the inputs on, and the values that follow from what is known.
#include <algorithm>
#include <optional>

#include "engine/compile/compiler.h"
#include "graph/draws.h"
#include "platform/run_control.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

/// Values up to this size are folded when their inputs are known; larger ones are left to the run.
constexpr size_t kFoldBytes = size_t{1} << 20;
/// And no more than this in one plan: a file may ask for any number of them.
constexpr size_t kFoldTotalBytes = size_t{32} << 20;

/// Whether the node's output has the bytes of its first input, in a shape that is known by now: most of what exporters
/// write to compute with sizes, and not worth a plan.
bool is_reshaped(const Node& node, std::span<const TensorFacts* const> in, std::span<const TensorFacts> out) {
  constexpr std::string_view kNames[] = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze"};
  return node.domain.empty() && std::ranges::find(kNames, node.op_type) != std::end(kNames) &&
         node.outputs.size() == 1 && node.outputs[0] != kNoValue && in[0] && in[0]->constant &&
         out[0].dtype == in[0]->dtype && out[0].shape.checked_elements() == in[0]->shape.checked_elements();
}

}  // namespace

/// What is known of a value that the plan must compute.
const TensorFacts& Compiler::known(ValueId id) const {
  const TensorFacts* f = facts(id);
  if (!f) {
    throw Error(ErrorCode::kModel,
                cat("the value '", graph().values[static_cast<size_t>(id)].name, "' is read, but no node computes it"));
  }
  return *f;
}

void Compiler::infer(const std::map<size_t, size_t>& forced) {
  for (const auto& [id, tensor] : stoppable(graph().constants)) {
    facts_[static_cast<size_t>(id)] = TensorFacts{tensor.dtype, tensor.shape, &tensor};
  }
  constexpr int64_t kMaxElements = int64_t{1} << 40;
  for (size_t i = 0; i < graph().inputs.size(); ++i) {
    const auto count = inputs_[i].shape.checked_elements();
    if (!count || *count > kMaxElements) {
      throw Error(ErrorCode::kModel, cat("input '", graph().values[static_cast<size_t>(graph().inputs[i])].name,
                                         "' of shape ", inputs_[i].shape.str(), " is too large"));
    }
    TensorFacts& facts = facts_[static_cast<size_t>(graph().inputs[i])].emplace();
    facts = {inputs_[i].dtype, inputs_[i].shape, nullptr};
    if (inputs_[i].value) {
      constants_.push_back(std::make_shared<Tensor>(*inputs_[i].value));
      facts.constant = constants_.back().get();
      facts.of_plan = true;
    }
  }
  for (size_t n = 0; n < graph().nodes.size() || !pending_.empty();) {
    RunControl::check();
    if (n == graph().nodes.size()) {
      own_->nodes.push_back(std::move(pending_.back()));
      pending_.pop_back();
    }
    reached_ = n;
    const auto force = forced.find(n);
    if (force != forced.end()) {
      defer(n++, force->second);
      continue;
    }
    if (reads_deferred(graph().nodes[n])) {
      defer(n++, std::nullopt);
      continue;
    }
    try {
      if (infer_node(n)) ++n;  // else a subgraph took its place
    } catch (const NeedsValue& needs) {
      if (!imagine(n)) defer(n++, needs.input());
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kUnsupportedOp) throw;
      unsupported_.push_back(error.what());
      ++n;
    }
  }
}

/// False where it put a subgraph in place of the node.
bool Compiler::infer_node(size_t n) {
  const Node& node = graph().nodes[n];
  const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
  if (!def) {
    throw Error(ErrorCode::kUnsupportedOp, cat(node.label(), ": there is no such operator at opset ", node.version));
  }
  std::vector<const TensorFacts*> in;
  bool all_constant = true;
  for (ValueId id : node.inputs) {
    in.push_back(facts(id));
    if (id == kNoValue || is_list(id)) continue;
    if (!in.back()) return true;  // follows from a node that is already on the list of what is not supported
    all_constant &= in.back()->constant != nullptr;
  }
  check_arity(node, def->schema);
  const TensorFacts unset{DType::kF32, Shape{Shape::kFree}, nullptr};
  std::vector<TensorFacts> out(node.outputs.size(), unset);
  InferContext context(node, in, out, constants_);
  if (def->resolve) {
    resolve(n, *def);
    return false;
  }
  if (passes_list(node, *def)) return true;
  if (def->select) {
    replace_by_subgraph(n, def->select(context));
    return false;
  }
  if (!def->schema.infer) throw NeedsValue(0, cat(node.label(), ": only a run can tell the shapes of its outputs"));
  def->schema.infer(context);
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i].shape == unset.shape) continue;  // the operator has no such output here; mark_needed sees who reads it
    out[i].of_plan = true;
    if (node.outputs[i] != kNoValue) facts_[static_cast<size_t>(node.outputs[i])] = out[i];
  }
  const bool already = std::all_of(out.begin(), out.end(), [](const TensorFacts& f) { return f.constant != nullptr; });
  if (!fold_ || !all_constant || already) return true;
  if (is_reshaped(node, in, out)) {
    Tensor same = *in[0]->constant;
    same.shape = out[0].shape;
    keep_folded(node.outputs[0], std::move(same));
  } else if (!draws(node)) {
    try_fold(node, in);
  }
  return true;
}

bool Compiler::try_fold(const Node& node, std::span<const TensorFacts* const> in) {
  std::vector<const Tensor*> tensors;
  for (const TensorFacts* f : in) tensors.push_back(f ? f->constant : nullptr);
  std::vector<Tensor> values = evaluate_node(
      node, tensors, {.bytes = std::min(kFoldBytes, kFoldTotalBytes - folded_bytes_), .time = &fold_time_});
  if (values.empty()) return false;
  for (size_t i = 0; i < values.size(); ++i) {
    if (node.outputs[i] == kNoValue) continue;
    keep_folded(node.outputs[i], std::move(values[i]));
  }
  return true;
}

void Compiler::keep_folded(ValueId id, Tensor value) {
  folded_bytes_ += std::min(value.bytes(), kFoldTotalBytes - folded_bytes_);
  constants_.push_back(std::make_shared<Tensor>(std::move(value)));
  facts_[static_cast<size_t>(id)]->constant = constants_.back().get();
}

}  // namespace inferkit
