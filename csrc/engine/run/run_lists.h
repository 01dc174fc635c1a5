// The sequences that lie between two plans, as the one that follows sees them.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/compile/compile.h"
#include "engine/plan/continuation.h"

namespace inferkit {

/// What the plan after `next` gets, by the ids that it gives them: values as they are, and the tensors of the sequences
/// that it is compiled for. `values` are those of the run, by their ids.
std::vector<std::pair<ValueId, std::optional<Tensor>>> plan_inputs(const Continuation& next,
                                                                   std::span<const Tensor> values);

/// What tells such plans apart: which inputs are sequences, of how many tensors. Empty where none is.
std::string lists_key(const Continuation& next, std::span<const Tensor> values);

/// For compile().
std::shared_ptr<const ListInput> list_facts(const TensorList& list);

}  // namespace inferkit
