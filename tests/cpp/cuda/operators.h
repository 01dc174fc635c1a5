// One operator on the tests' CUDA device and on the CPU, to the bit.
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../engine/one_node.h"
#include "backend_on_host.h"
#include "engine/model/packed_weights.h"
#include "models.h"

namespace inferkit::testing {

using cuda_on_host::Figures;
using Ints = std::vector<int64_t>;
using Floats = std::vector<float>;
using Texts = std::vector<std::string>;

/// An input of a node: float32 that a run brings, unless it says otherwise.
struct Given {
  Shape shape;
  bool constant = false;
  std::vector<int64_t> integers = {};  // its values, as `whole`
  std::vector<float> floats = {};      // its values; drawn where there are neither
  bool missing = false;
  DType whole = DType::kI64;  // int32, int64 or bool
};
inline Given weights(const Shape& shape) { return {shape, true}; }
inline Given constant(const Ints& values) { return {{static_cast<int64_t>(values.size())}, true, values}; }
inline Given constant(const Floats& values) { return {{static_cast<int64_t>(values.size())}, true, {}, values}; }
inline Given no_input() { return {.shape = {}, .missing = true}; }

struct One {
  std::string op;
  std::vector<Given> inputs;
  std::map<std::string, Attribute, std::less<>> attributes{};
  int version = 17;
  size_t outputs = 1;
  bool wild = false;  // with infinities, NaN, subnormals
  DType dtype = DType::kF32;
  std::string domain = {};
};

struct Made {
  Graph graph;
  std::vector<Tensor> values;
  std::vector<InputFacts> facts;
};
inline Made make(const One& from) {
  Made out;
  std::vector<ValueId> ids;
  uint32_t seed = 1;
  for (const Given& in : from.inputs) {
    if (in.missing) {
      ids.push_back(kNoValue);
      continue;
    }
    const auto n = static_cast<size_t>(in.shape.elements());
    Tensor value;
    if (!in.integers.empty() || (from.dtype == DType::kI64 && in.floats.empty())) {
      Ints values = in.integers;
      for (size_t i = 0; values.size() < n; ++i) values.push_back(static_cast<int64_t>(i * 7919 % 1000) - 500);
      if (in.whole == DType::kI32) {
        value = make_tensor<int32_t>(in.shape, std::vector<int32_t>(values.begin(), values.end()));
      } else if (in.whole == DType::kBool) {
        void* data = nullptr;
        value = make_tensor(DType::kBool, in.shape, &data);
        std::ranges::transform(values, static_cast<bool*>(data), [](int64_t v) { return v != 0; });
      } else {
        value = make_tensor<int64_t>(in.shape, values);
      }
    } else if (!in.floats.empty()) {
      value = make_tensor<float>(in.shape, in.floats);
    } else {
      value = make_tensor<float>(in.shape, from.wild ? wild_floats(n, seed) : random_floats(n, seed, -2, 2));
    }
    ++seed;
    ids.push_back(out.graph.add_value(cat("in", ids.size())));
    if (in.constant) {
      value.id = seed;
      out.graph.constants.emplace(ids.back(), value);
    } else {
      out.graph.inputs.push_back(ids.back());
      out.facts.push_back({value.dtype, value.shape});
      out.values.push_back(value);
    }
  }
  for (size_t i = 0; i < from.outputs; ++i) out.graph.outputs.push_back(out.graph.add_value(cat("y", i)));
  Node node = make_node(from.op, ids, out.graph.outputs);
  node.version = from.version;
  node.domain = from.domain;
  node.attributes = from.attributes;
  out.graph.nodes.push_back(node);
  return out;
}

/// Each output's type and bytes.
inline std::vector<std::pair<DType, std::vector<std::byte>>> run(const Made& made, Device& device, int times) {
  PackedWeights cache;
  const auto plan = compile(made.graph, made.facts, cache, {.device = &device});
  Session session(plan, *BufferPool::process_default());
  std::vector<std::pair<DType, std::vector<std::byte>>> out;
  std::vector<const void*> in;
  std::vector<void*> to;
  for (const Tensor& value : made.values) in.push_back(value.data);
  for (const Port& port : plan->outputs) {
    const size_t bytes = static_cast<size_t>(port.shape.elements()) * dtype_size(port.dtype);
    out.emplace_back(port.dtype, std::vector<std::byte>(bytes, std::byte{0x5a}));
  }
  for (auto& [dtype, bytes] : out) to.push_back(bytes.data());
  for (int i = 0; i < times; ++i) session.run(in, to, {});
  return out;
}

inline void same(const One& one, const std::string& what) {
  if (!comparable()) return;
  Figures figures;
  const Compared compared(figures);
  const Made made = make(one);
  const auto want = run(made, cpu_device(), 1);
  for (const uint64_t seed : kSeeds) {
    figures.seed = 100 * seed;
    const auto got = run(made, compared.device(), 2);
    for (size_t i = 0; i < want.size(); ++i) {
      const auto& [dtype, bytes] = want[i];
      CHECK_EQ(got[i].second.size(), bytes.size());
      const std::string where = cat(what, ", ", one.op, ", output ", i, ", seed ", seed);
      if (dtype == DType::kF32) {
        const auto* a = reinterpret_cast<const float*>(got[i].second.data());
        const auto* b = reinterpret_cast<const float*>(bytes.data());
        if (!same_values(a, b, bytes.size() / sizeof(float), where)) return;
      } else if (got[i].second != bytes) {
        return fail(__FILE__, __LINE__, cat(where, ": other bytes"));
      }
    }
  }
  if (compared.emulated() && figures.launches == 0)
    fail(__FILE__, __LINE__, cat(what, ", ", one.op, ": nothing was launched"));
}

}  // namespace inferkit::testing
