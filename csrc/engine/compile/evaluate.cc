// One node, run on constants by a plan of its own: what folding does, and dynamic nodes without a function of their
// own.
#include <algorithm>

#include "engine/compile/compiler.h"
#include "engine/plan/text_heap.h"
#include "graph/text_tensor.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

/// Makes a thing each time: for a plan that runs once.
class TransientCache final : public ModelCache {
 public:
  std::shared_ptr<const void> get(const PackedKey&, const MakeFn& make, size_t) override { return make(); }
};

std::vector<Tensor> evaluate_within(const Node& node, std::span<const Tensor* const> inputs,
                                    const EvaluateLimits& limits) {
  const OpDef* def = OpRegistry::instance().find(node.domain, node.op_type, node.version);
  if (!def || def->resolve) return {};
  Graph graph;
  Node copy = node;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!inputs[i]) continue;
    copy.inputs[i] = graph.add_value("");
    graph.constants.emplace(copy.inputs[i], *inputs[i]);
  }
  for (ValueId& id : copy.outputs) {
    if (id == kNoValue) continue;
    id = graph.add_value("");
    graph.outputs.push_back(id);
  }
  name_required_outputs(copy, graph);
  graph.nodes.push_back(std::move(copy));
  TransientCache cache;
  const auto plan = compile_as(graph, {}, cache, {.max_run_bytes = limits.run_bytes}, /*fold=*/false);
  if (plan->next) return {};
  size_t total = 0;
  for (const Port& port : plan->outputs) total += TensorView{port.dtype, port.shape, nullptr}.bytes();
  std::vector<Tensor> out(node.outputs.size());
  std::vector<void*> pointers;
  if (plan->steps.size() == 1 && plan->steps[0].fn == cpu_device().copy_step() && plan->outputs.size() == 1) {
    // A view of a constant (Reshape of a weight): share the bytes.
    const auto& source = plan->operands[plan->steps[0].first_operand + 1];
    for (const Tensor* input : inputs) {
      if (input && source.kind == Operand::Kind::kConstant && input->data == source.pointer) {
        for (size_t i = 0; i < out.size(); ++i) {
          if (node.outputs[i] == kNoValue) continue;
          out[i] = {plan->outputs[0].dtype, plan->outputs[0].shape, input->data, input->owner, input->id};
        }
        return out;
      }
    }
  }
  if (total > limits.bytes || (limits.time && !limits.time->take(plan->estimated_nanos))) return {};
  if (limits.before_run) limits.before_run(plan->estimated_nanos);
  size_t port = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (node.outputs[i] == kNoValue) continue;
    void* data = nullptr;
    out[i] = make_tensor(plan->outputs[port].dtype, plan->outputs[port].shape, &data);
    pointers.push_back(data);
    ++port;
  }
  Session session(plan, *BufferPool::process_default());
  const size_t most_text = std::min(limits.bytes, limits.run_bytes);
  TextHeap text(*BufferPool::process_default(), most_text);
  try {
    const TextHeap::Scope scope(text);
    session.run({}, pointers, {});
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    if (error.reason() == Reason::kTooLarge) {
      if (limits.bytes < limits.run_bytes) return {};  // a run may have more
      throw;
    }
    // Constants on which the operation is impossible (an index out of range): the graph is wrong, not a run.
    if (error.code() != ErrorCode::kInference) throw;
    throw Error(ErrorCode::kModel, error.what());
  }
  size_t text_left = most_text;
  for (Tensor& tensor : out) {  // shows what the run has, and its constants
    if (tensor.dtype != DType::kString || !tensor.data) continue;
    const auto views = strings_of(tensor.view());
    const size_t bytes = text_bytes(views);
    if (bytes > text_left) {
      if (limits.bytes < limits.run_bytes) return {};
      throw Error(ErrorCode::kValidation, Reason::kTooLarge, cat("strings of ", bytes >> 20, " MiB"));
    }
    text_left -= bytes;
    tensor = text_tensor(tensor.shape, views);
  }
  return out;
}

}  // namespace

std::vector<Tensor> evaluate_node(const Node& node, std::span<const Tensor* const> inputs,
                                  const EvaluateLimits& limits) {
  if (!limits.time) return evaluate_within(node, inputs, limits);
  std::vector<Tensor> out;
  limits.time->spend([&] { out = evaluate_within(node, inputs, limits); });
  return out;
}

}  // namespace inferkit
