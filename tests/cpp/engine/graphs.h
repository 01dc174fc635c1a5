// Small models built in code.
#pragma once
#include <string>
#include <vector>

#include "engine/model/model.h"

namespace inferkit::testing {

inline Node make_node(std::string op, std::vector<ValueId> inputs, std::vector<ValueId> outputs) {
  Node node;
  node.op_type = std::move(op);
  node.version = 17;
  node.inputs = std::move(inputs);
  node.outputs = std::move(outputs);
  return node;
}

/// y = relu(x W + b) with W[i][j] = i + j and b[j] = -j, x of shape (None, 3), y of shape (None, 2).
inline ModelFile small_model() {
  ModelFile file;
  Graph& g = file.graph;
  const ValueId x = g.add_value("x"), w = g.add_value("w"), b = g.add_value("b");
  const ValueId product = g.add_value("product"), sum = g.add_value("sum"), y = g.add_value("y");
  g.values[0].dtype = DType::kF32;
  g.values[0].shape = Shape{Shape::kFree, 3};
  const float weights[] = {0, 1, 1, 2, 2, 3}, bias[] = {0, -1};
  g.constants.emplace(w, make_tensor<float>({3, 2}, weights));
  g.constants.emplace(b, make_tensor<float>({2}, bias));
  g.nodes = {make_node("MatMul", {x, w}, {product}), make_node("Add", {product, b}, {sum}),
             make_node("Relu", {sum}, {y})};
  g.inputs = {x};
  g.outputs = {y};
  file.opsets[""] = 17;
  return file;
}

/// Collects outputs in vectors.
class VectorSink final : public OutputSink {
 public:
  void* allocate(size_t index, DType dtype, const Shape& shape) override {
    if (values.size() <= index) values.resize(index + 1);
    values[index].resize(static_cast<size_t>(shape.elements()) * dtype_size(dtype));
    last_shape = shape;
    return values[index].data();
  }
  char* allocate_text(size_t index, size_t bytes) override {
    if (texts.size() <= index) texts.resize(index + 1);
    texts[index].resize(bytes);
    return texts[index].data();
  }
  std::string_view string(size_t index, size_t i) const {
    return reinterpret_cast<const std::string_view*>(values[index].data())[i];
  }
  const float* floats(size_t index) const { return reinterpret_cast<const float*>(values[index].data()); }

  std::vector<std::vector<std::byte>> values;
  std::vector<std::vector<char>> texts;
  Shape last_shape;
};

}  // namespace inferkit::testing
