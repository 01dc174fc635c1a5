// The equation of Einsum, resolved against the shapes of its operands.
#pragma once
#include <cstdint>
#include <map>
#include <vector>

#include "graph/op_schema.h"

namespace inferkit {

/// A letter, or (from kEllipsisLabel on) a dimension that an ellipsis stands for, counted from the last.
using Label = int;
inline constexpr Label kEllipsisLabel = 1000;
using Labels = std::vector<Label>;

struct EinsumEquation {
  std::vector<Labels> terms;      // one label for each dimension of each operand
  Labels out;                     // none twice
  std::map<Label, int64_t> dims;  // after broadcasting
};

/// Reads the attribute "equation". Fails where it is malformed or does not fit the shapes.
EinsumEquation einsum_equation(const NodeContext& c);

}  // namespace inferkit
