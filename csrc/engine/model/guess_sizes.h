// Sizes that a model is tried with when it is loaded, for the dimensions that its inputs leave free.
#pragma once
#include <cstdint>
#include <vector>

#include "graph/ir.h"

namespace inferkit {

/// Sizes of the free dimensions, in the order in which the inputs have them. `is_batch`, of each of them: it is the
/// first dimension of its input.
using Sizes = std::vector<int64_t>;

/// What is tried first: one size for the first dimension of each input, and one for all others.
std::vector<Sizes> equal_sizes(const std::vector<bool>& is_batch);

/// Sizes that the file's weights have, a few of them: a product wants one of its inputs.
Sizes sizes_of_weights(const Graph& graph);

/// What is tried next: those sizes for all dimensions but the first, then for the first as well.
std::vector<Sizes> known_sizes(const std::vector<bool>& is_batch, const Sizes& known);

/// What is tried where none of those fits: a long window needs a long signal, and may stand beside one channel. The
/// more dimensions, the fewer sizes for each, the first of the list.
std::vector<Sizes> different_sizes(const std::vector<bool>& is_batch);

}  // namespace inferkit
