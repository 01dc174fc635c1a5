// What the file declares of its outputs, beside what the graph gives.
#pragma once
#include <cstddef>

#include "base/error.h"
#include "graph/ir.h"

namespace inferkit {

/// An output is not what the file declares, whatever the inputs' sizes.
class WrongOutput final : public Error {
 public:
  explicit WrongOutput(const std::string& message) : Error(ErrorCode::kModel, message) {}
};

/// Throws WrongOutput where output `index` is declared to be no such sequence, or not to be empty as an optional is.
/// The type of a sequence counts once there is something in it.
void require_declared_list(const Graph& graph, size_t index, const Tensor& list);

/// Throws WrongOutput where output `index` is declared a sequence, or an optional of tensors of another type. What is
/// declared of plain tensors is advice: on trial values a loop may make no turn, and tell another type.
void require_declared_tensor(const Graph& graph, size_t index, DType dtype);

/// Throws WrongOutput where output `index` is declared a plain tensor of text and is one of numbers, or the other way
/// round: an exporter meant something else than it wrote, such as labels where the graph gives their indices. Of
/// numbers, those that come say for themselves what they are.
void require_declared_type(const Graph& graph, size_t index, DType dtype);

}  // namespace inferkit
