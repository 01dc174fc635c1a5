// libFuzzer: whatever the bytes, reading and rewriting a model ends in a graph or an Error. Build with clang and
// -DINFERKIT_BUILD_FUZZERS=ON, then run: fuzz_onnx CORPUS_FOLDER tests/data/graph
#include <cstdint>
#include <cstdlib>
#include <iostream>

#include "base/error.h"
#include "engine/compile/compile.h"
#include "graph/onnx_reader.h"
#include "graph/passes/fold_constants.h"
#include "graph/passes/passes.h"
#include "graph/topological_sort.h"

using namespace inferkit;

namespace {

void require(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "broken promise: " << what << "\n";
  std::abort();
}

/// Every read is of something that is already there, and every constant's bytes can be read.
void check(const Graph& g) {
  std::vector<bool> defined(g.values.size());
  const auto define = [&](ValueId id) {
    require(id >= 0 && static_cast<size_t>(id) < defined.size(), "ids are in range");
    require(!defined[static_cast<size_t>(id)], "values are defined once");
    defined[static_cast<size_t>(id)] = true;
  };
  const auto read = [&](ValueId id) {
    require(id >= 0 && static_cast<size_t>(id) < defined.size(), "ids are in range");
    require(defined[static_cast<size_t>(id)], "nodes are in topological order");
  };
  for (const ValueId id : g.inputs) define(id);
  for (const Capture& c : g.captures) define(c.inner);
  unsigned sum = 0;
  for (const auto& [id, t] : g.constants) {
    define(id);
    if (t.dtype == DType::kString) {
      for (int64_t i = 0; i < t.shape.elements(); ++i) sum += static_cast<unsigned>(t.as<std::string>()[i].size());
      continue;
    }
    require(reinterpret_cast<uintptr_t>(static_cast<const void*>(t.data)) % dtype_size(t.dtype) == 0, "constants are aligned");
    for (size_t i = 0; i < t.bytes(); ++i) sum += t.as<uint8_t>()[i];
  }
  [[maybe_unused]] static volatile unsigned sink;  // the reads above must happen
  sink = sum;
  for (const Node& n : g.nodes) {
    for_each_read(n, read);
    for (const auto& [name, a] : n.attributes)
      if (const auto* sub = std::get_if<std::shared_ptr<Graph>>(&a)) check(**sub);
    for (const ValueId id : n.outputs)
      if (id != kNoValue) define(id);
  }
  for (const ValueId id : g.outputs) read(id);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto bytes = std::as_bytes(std::span(data, size));
    // The fuzzer keeps the bytes for the length of this call, so the graph may view them.
    ModelFile model = read_onnx(bytes, {}, std::shared_ptr<const void>(data, [](const void*) {}));
    check(model.graph);
    fold_constants(model.graph, [](const Node& n, std::span<const Tensor* const> in) {
      return n.op_type == "Identity" && n.outputs.size() == 1 && in[0] ? std::optional(std::vector<Tensor>{*in[0]})
                                                                       : std::nullopt;
    });
    check(model.graph);
    if (!missing_operators(model.graph).empty()) return 0;
    check_arities(model.graph);  // passes rely on it
    run_passes(model.graph);
    check(model.graph);
  } catch (const Error& e) {
    require(e.code() == ErrorCode::kModel || e.code() == ErrorCode::kUnsupportedOp, "errors are of the model");
  }
  return 0;
}
