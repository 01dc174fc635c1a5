#include "engine/model/check_branches.h"

#include <algorithm>
#include <map>
#include <set>

#include "platform/run_control.h"

namespace inferkit {
namespace {

/// What the plans of one walk may cost: nested conditions multiply.
constexpr int kMaxPlans = 128;

class BranchCheck {
 public:
  BranchCheck(ModelCache& cache, const CompileOptions& options) : cache_(cache), options_(options) {}

  void follow(const Plan& plan, const Graph& graph, std::span<const InputFacts> inputs) {
    if (!plan.next || plan.next->ends()) return;
    const Continuation& next = *plan.next;
    std::map<ValueId, InputFacts> facts;
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].is_list) continue;
      facts[graph.inputs[i]] = {inputs[i].dtype, inputs[i].shape, nullptr};
    }
    for (size_t i = 0; i < plan.results.size(); ++i) {
      facts[plan.results[i].value] = {plan.outputs[i].dtype, plan.outputs[i].shape, nullptr};
    }
    std::vector<InputFacts> rest;
    for (const ValueId id : next.rest.inputs) {
      const auto it = facts.find(id);
      if (it == facts.end()) return;  // the shape of what a dynamic node gives
      rest.push_back(it->second);
    }
    const auto is_condition = [&](size_t i) {
      return rest[i].dtype == DType::kBool && rest[i].shape.checked_elements() == 1;
    };
    if (!std::all_of(next.known.begin(), next.known.end(), is_condition)) return;
    for (const bool value : {true, false}) {
      std::vector<Tensor> conditions;
      conditions.reserve(next.known.size());
      for (const size_t i : next.known) {
        conditions.push_back(make_tensor<bool>(rest[i].shape, std::span(&value, 1)));
        rest[i].value = &conditions.back();
      }
      try_branch(next, rest);
    }
  }

  std::set<std::string> lines;

 private:
  void try_branch(const Continuation& next, std::span<const InputFacts> rest) {
    if (plans_++ >= kMaxPlans) return;
    try {
      CompileOptions options = options_;
      options.continuation = &next;
      const auto plan = compile(next.rest, rest, cache_, options);
      follow(*plan, next.rest, rest);
    } catch (const Stopped&) {
      throw;
    } catch (const Unsupported& error) {
      lines.insert(error.lines().begin(), error.lines().end());
    } catch (const Error& error) {
      // What does not fit may be a branch that is never taken for these shapes.
      if (error.code() == ErrorCode::kUnsupportedOp) lines.insert(error.what());
    }
  }

  ModelCache& cache_;
  const CompileOptions options_;
  int plans_ = 0;
};

}  // namespace

std::vector<std::string> unsupported_in_branches(const Plan& plan, const Graph& graph,
                                                 std::span<const InputFacts> inputs, ModelCache& cache,
                                                 const CompileOptions& options) {
  BranchCheck check(cache, options);
  check.follow(plan, graph, inputs);
  return {check.lines.begin(), check.lines.end()};
}

}  // namespace inferkit
