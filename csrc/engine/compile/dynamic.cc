#include "engine/compile/dynamic.h"

#include "engine/compile/compile.h"

namespace inferkit {

std::vector<Tensor> run_on_values(const NodeContext& c, DynamicContext& run) {
  std::vector<const Tensor*> inputs;
  for (size_t i = 0; i < c.input_count(); ++i) inputs.push_back(c.has_input(i) ? c.input(i).constant : nullptr);
  std::vector<Tensor> out = evaluate_node(
      c.node(), inputs, {.run_bytes = run.max_bytes(), .before_run = [&](int64_t estimate) { run.spend(estimate); }});
  if (out.empty()) c.unsupported("it cannot run on values");
  return out;
}

}  // namespace inferkit
