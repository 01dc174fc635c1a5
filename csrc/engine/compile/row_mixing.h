// Whether the rows of a run depend on each other: whether something is combined along the axis that a batch grows.
#pragma once
#include <span>
#include <string>

#include "engine/compile/compile.h"

namespace inferkit {

/// The label of a node that combines values along an axis that grows from the inputs `few` to the inputs `many`, which
/// differ in their number of rows alone, as `one` does, with one row; "" where there is none. A node does so where its
/// operator says so of the axis (OpSchema::mixed_axes), where its output grows less than an input of it (then something
/// was reduced over the rows, or some of them were picked), and where one row fits and several do not. An output of the
/// model that has not one row for each counts as well. Nodes whose shapes only a run tells, and subgraphs, are not
/// looked at. Throws what compile() throws where one row does not fit.
std::string find_mixing_node(const Graph& graph, std::span<const InputFacts> one, std::span<const InputFacts> few,
                             std::span<const InputFacts> many, ModelCache& cache, const CompileOptions& options);

}  // namespace inferkit
