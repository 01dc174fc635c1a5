#include "engine/run/declared_output.h"

#include <string>

#include "graph/tensor_list.h"

namespace inferkit {
namespace {

std::string described(bool sequence, std::optional<DType> dtype) {
  const std::string type = dtype ? " of " + std::string(dtype_name(*dtype)) : "";
  return (sequence ? "a sequence" : "a tensor") + type;
}

[[noreturn]] void refuse(const Value& declared, const std::string& given) {
  const auto& list = declared.list;
  const std::string what = list ? described(list->sequence, list->dtype) : described(false, declared.dtype);
  throw WrongOutput(cat("the model file declares output '", declared.name, "' as ",
                        list && list->optional ? "an optional of " : "", what, ", and the graph gives ", given,
                        ": correct the declaration or the graph"));
}

const Value& declared_output(const Graph& graph, size_t index) {
  return graph.values[static_cast<size_t>(graph.outputs[index])];
}

}  // namespace

void require_declared_list(const Graph& graph, size_t index, const Tensor& list) {
  const Value& declared = declared_output(graph, index);
  const TensorList& given = *list.list;
  if (given.none) {
    if (!declared.list || !declared.list->optional) refuse(declared, "an optional with nothing in it");
    return;
  }
  const DType dtype = given.items.empty() ? list.dtype : given.items[0].dtype;
  const bool other = !given.items.empty() && declared.list && declared.list->dtype && *declared.list->dtype != dtype;
  if (!declared.list || !declared.list->sequence || other) refuse(declared, described(true, dtype));
}

void require_declared_tensor(const Graph& graph, size_t index, DType dtype) {
  const Value& declared = declared_output(graph, index);
  if (!declared.list) return;
  const bool other = declared.list->dtype && *declared.list->dtype != dtype;
  if (declared.list->sequence || other) refuse(declared, described(false, dtype));
}

void require_declared_type(const Graph& graph, size_t index, DType dtype) {
  const Value& declared = declared_output(graph, index);
  const auto is_text = [](DType of) { return of == DType::kString; };
  if (declared.dtype && is_text(*declared.dtype) != is_text(dtype)) refuse(declared, described(false, dtype));
}

}  // namespace inferkit
