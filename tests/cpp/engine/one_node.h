// One operator with inputs, compiled and run.
#pragma once
#include <map>
#include <random>
#include <string>
#include <vector>

#include "engine/compile/compile.h"
#include "engine/graphs.h"

namespace inferkit::testing {

struct Case {
  std::string op;
  std::vector<Shape> inputs;
  DType dtype = DType::kF32;
  std::map<std::string, Attribute, std::less<>> attributes{};
  int version = 17;
  bool constant_last = false;  // the last input is a weight
};

struct Built {
  Graph graph;
  std::vector<Tensor> values;     // of all inputs
  std::vector<InputFacts> facts;  // of those that are no weights
};

inline Built build(const Case& from) {
  std::mt19937 random(7);
  Built out;
  std::vector<ValueId> ids;
  for (size_t i = 0; i < from.inputs.size(); ++i) {
    void* data = nullptr;
    out.values.push_back(make_tensor(from.dtype, from.inputs[i], &data));
    for (int64_t at = 0; at < from.inputs[i].elements(); ++at) {
      const auto draw = static_cast<int>(random() % 201) - 100;
      // Divided by 100: sums are rounded, so that their order shows.
      if (from.dtype == DType::kF32) static_cast<float*>(data)[at] = static_cast<float>(draw) / 100;
      if (from.dtype == DType::kF64) static_cast<double*>(data)[at] = static_cast<double>(draw) / 100;
      if (from.dtype == DType::kI32) static_cast<int32_t*>(data)[at] = draw;
      if (from.dtype == DType::kI64) static_cast<int64_t*>(data)[at] = draw;
      if (from.dtype == DType::kU8) static_cast<uint8_t*>(data)[at] = static_cast<uint8_t>(draw + 100);
      if (from.dtype == DType::kI8) static_cast<int8_t*>(data)[at] = static_cast<int8_t>(draw);
    }
    ids.push_back(out.graph.add_value("in"));
    if (from.constant_last && i + 1 == from.inputs.size()) {
      out.graph.constants.emplace(ids.back(), out.values.back());
    } else {
      out.graph.inputs.push_back(ids.back());
      out.facts.push_back({from.dtype, from.inputs[i]});
    }
  }
  out.graph.outputs = {out.graph.add_value("y")};
  Node node = make_node(from.op, ids, out.graph.outputs);
  node.version = from.version;
  node.attributes = from.attributes;
  out.graph.nodes.push_back(node);
  return out;
}

inline std::vector<std::byte> run(const Built& built, std::shared_ptr<const Plan> plan, const ExecContext& context) {
  std::vector<const void*> in;
  for (size_t i = 0; i < built.facts.size(); ++i) in.push_back(built.values[i].data);
  const Port& port = plan->outputs.at(0);
  std::vector<std::byte> out(TensorView{port.dtype, port.shape, nullptr}.bytes());
  void* pointers[] = {out.data()};
  Session(std::move(plan), *BufferPool::process_default()).run(in, pointers, context);
  return out;
}

}  // namespace inferkit::testing
