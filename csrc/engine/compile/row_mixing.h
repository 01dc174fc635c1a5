// Whether the rows of a run depend on each other: whether something is combined along the axis that a batch grows.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "engine/compile/compile.h"

namespace inferkit {

/// What a graph is given, which differs in the number of rows alone: `few` and `many` rows are compared axis by axis;
/// with `one`, and with `lots`, only what is known before a run has to be the same.
struct RowSamples {
  std::vector<InputFacts> one, few, many, lots;
};

/// Whether the shapes of the graph that agree for one row do so for few and for many of them, as far as they follow
/// without a run; nullopt where those for one row do not agree, which tells nothing.
std::optional<bool> fits_any_rows(const Graph& graph, const RowSamples& samples, ModelCache& cache,
                                  const CompileOptions& options);

/// The label of a node that combines values along an axis that grows from `few` to `many`; "" where there is none. A
/// node does so where its operator says so of the axis (OpSchema::mixed_axes), where its output grows less than an
/// input of it (then something was reduced over the rows, or some of them were picked), where what it computes with is
/// another constant for another number of rows, where what it gives is not as many times as long as there are rows, and
/// where one row fits and several do not. An output of the model that has not one row for each counts as well, or one
/// that follows from the number of rows and differs from row to row, and so does a node that takes rows and whose shape
/// only a run tells: who knows what is made of them. Of what only a run chooses, options.imagined is looked at. Throws
/// what compile() throws where one row does not fit.
std::string find_mixing_node(const Graph& graph, const RowSamples& samples, ModelCache& cache,
                             const CompileOptions& options);

}  // namespace inferkit
