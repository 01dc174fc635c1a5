// What a graph makes of inputs that are usually a mistake: NaN, minus infinity, an empty dimension.
#pragma once
#include <vector>

#include "base/validation.h"
#include "graph/ir.h"

namespace inferkit {

/// For each input of the graph, as it stands in the file, what all that reads it gives a meaning to:
/// - NaN, where it comes to trees that track missing values, or to an Imputer that replaces it; or where IsNaN asks, or
///   a value is compared with itself;
/// - minus infinity, where it is added to what a Softmax is taken of, spelled out or not, or masks an attention;
/// - an empty axis, where Concat puts something beside it, or an attention takes it as its past.
/// What it does not know gives no meaning. Linear in the size of the graph.
std::vector<InputSense> input_senses(const Graph& graph);

}  // namespace inferkit
