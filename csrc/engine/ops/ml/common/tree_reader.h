// What the tree nodes of ai.onnx.ml say, resolved into one list of nodes. Everything that can be wrong in it is
// reported through the context; ids are looked up in bounded time whatever they are.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "engine/ops/ml/common/tree_ensemble.h"
#include "graph/op_schema.h"

namespace inferkit::ml {

/// An attribute of integers; empty where it is absent.
const std::vector<int64_t>& ints(const NodeContext& c, std::string_view name);
/// The attribute `name`, or its twin "<name>_as_tensor". T is float or double.
template <class T>
std::vector<T> tree_values(const NodeContext& c, const std::string& name);
void check_length(const NodeContext& c, std::string_view name, size_t length, size_t expected);

/// TreeEnsembleClassifier (`prefix` is "class") and TreeEnsembleRegressor ("target").
template <class T>
TreeSource<T> read_trees(const NodeContext& c, const std::string& prefix, int64_t targets);
/// TreeEnsemble of opset 5, which holds interior nodes and leaves apart.
template <class T>
TreeSource<T> read_trees5(const NodeContext& c);

}  // namespace inferkit::ml
