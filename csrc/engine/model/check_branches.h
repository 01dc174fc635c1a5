// What the branches that a probe did not take need: known at load rather than at the first request that takes them.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "engine/compile/compile.h"

namespace inferkit {

/// Compiles what follows `plan` for both values of the conditions that it waits for, and so on; as far as conditions
/// are all that it waits for. Returns one line for each thing that is not supported. `inputs` are those of `graph`,
/// which `plan` is of; `options` say what it is compiled for.
std::vector<std::string> unsupported_in_branches(const Plan& plan, const Graph& graph,
                                                 std::span<const InputFacts> inputs, ModelCache& cache,
                                                 const CompileOptions& options);

}  // namespace inferkit
