// The sequences that lie between two plans, as the one that follows sees them.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/compile/compile.h"
#include "engine/plan/continuation.h"
#include "engine/run/run_values.h"

namespace inferkit {

/// What the plan after `next` gets, by the ids that it gives them: values as they are, and the tensors of the sequences
/// that it is compiled for.
std::vector<std::pair<ValueId, std::optional<Tensor>>> plan_inputs(const Continuation& next, const RunValues& values);

/// What tells such plans apart: which inputs are sequences, of how many tensors. Empty where none is.
std::string lists_key(const Continuation& next, const RunValues& values);

/// For compile().
std::shared_ptr<const ListInput> list_facts(const TensorList& list);

}  // namespace inferkit
