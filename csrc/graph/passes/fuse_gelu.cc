#include <numbers>

#include "graph/passes/passes.h"
#include "graph/passes/pattern.h"

namespace inferkit {
namespace {

/// Where erf's argument is x / sqrt 2: x. kNoValue elsewhere.
ValueId erf_of(const Rewriter& r, ValueId argument) {
  const Node* n = r.producer(argument);
  if (!n || n->inputs.size() != 2) return kNoValue;
  if (is_op(*n, "Div") && r.is_number(n->inputs[1], std::numbers::sqrt2)) return n->inputs[0];
  if (!is_op(*n, "Mul")) return kNoValue;
  if (r.is_number(n->inputs[1], 1 / std::numbers::sqrt2)) return n->inputs[0];
  return r.is_number(n->inputs[0], 1 / std::numbers::sqrt2) ? n->inputs[1] : kNoValue;
}

/// Adds the factors of `id` to `out`, through products that nobody else reads.
void collect_factors(const Rewriter& r, ValueId id, int depth, std::vector<ValueId>& out) {
  const Node* n = r.producer(id);
  if (depth < 2 && n && is_op(*n, "Mul") && n->inputs.size() == 2 && (depth == 0 || r.only_reader(id) >= 0)) {
    for (const ValueId in : n->inputs) collect_factors(r, in, depth + 1, out);
  } else {
    out.push_back(id);
  }
}

/// Is the product that node n computes x * 0.5 * sum, in any order?
bool is_gelu(const Rewriter& r, int n, ValueId x, ValueId sum) {
  std::vector<ValueId> factors;
  collect_factors(r, r.node(n).outputs[0], 0, factors);
  if (factors.size() != 3) return false;
  const auto take = [&](auto&& matches) {
    const auto it = std::find_if(factors.begin(), factors.end(), matches);
    if (it == factors.end()) return false;
    factors.erase(it);
    return true;
  };
  return take([&](ValueId id) { return id == sum; }) && take([&](ValueId id) { return id == x; }) &&
         take([&](ValueId id) { return r.is_number(id, 0.5); });
}

}  // namespace

bool fuse_gelu(Graph& graph) {
  Rewriter r(graph);
  for (const int n : r.nodes()) {
    if (!r.alive(n) || !is_op(r.node(n), "Erf") || r.node(n).inputs.size() != 1) continue;
    const ValueId x = erf_of(r, r.node(n).inputs[0]);
    const int add = r.only_reader(r.node(n).outputs[0]);
    if (x == kNoValue || add < 0 || !is_op(r.node(add), "Add")) continue;
    if (!r.is_number(Rewriter::other_input(r.node(add), r.node(n).outputs[0]), 1)) continue;
    const ValueId sum = r.node(add).outputs[0];
    // The product's last node reads the sum, or reads a product that does.
    int last = r.only_reader(sum);
    if (last >= 0 && is_op(r.node(last), "Mul") && !is_gelu(r, last, x, sum))
      last = r.only_reader(r.node(last).outputs[0]);
    if (last < 0 || !is_op(r.node(last), "Mul") || !is_gelu(r, last, x, sum)) continue;
    Node gelu;
    gelu.op_type = "Gelu";
    gelu.domain = kInternalDomain;
    gelu.name = r.node(last).name;
    gelu.version = 1;
    gelu.inputs = {x};
    gelu.outputs = r.node(last).outputs;
    r.replace(last, std::move(gelu));
  }
  return r.finish();
}

}  // namespace inferkit
