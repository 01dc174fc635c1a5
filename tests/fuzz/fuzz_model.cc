// libFuzzer: whatever the file, loading it, compiling it and running it once ends in an answer or an Error, in bounded
// time and memory. Build and run as fuzz_onnx; seeds.py writes a corpus of small models of every operator.
#include <cstdlib>
#include <iostream>

#include "base/error.h"
#include "engine/model.h"

using namespace inferkit;

namespace {

constexpr size_t kMaxBytes = size_t{32} << 20;
constexpr int64_t kMaxNanos = 20'000'000;  // of a release build; sanitizers take twenty times as long

void require(bool condition, const std::string& what) {
  if (condition) return;
  std::cerr << "broken promise: " << what << "\n";
  std::abort();
}

/// Takes outputs, and reads them, so that the sanitizers see what was not written or lies outside.
class Sink final : public OutputSink {
 public:
  void* allocate(size_t index, DType dtype, const Shape& shape) override {
    const size_t bytes = TensorView{dtype, shape, nullptr}.bytes();
    if (outputs_.size() <= index) outputs_.resize(index + 1);
    outputs_[index].assign(bytes + 1, std::byte{0xa5});
    return outputs_[index].data();
  }

 private:
  std::vector<std::vector<std::byte>> outputs_;
};

/// Ones for every input, free dimensions taken as 2; empty where that would be much.
std::vector<TensorView> ones(std::span<const PortSpec> specs, std::vector<std::vector<std::byte>>& memory) {
  std::vector<TensorView> out;
  for (const PortSpec& spec : specs) {
    Shape shape = spec.shape;
    for (size_t i = 0; i < shape.rank(); ++i) {
      if (shape[i] == Shape::kFree) shape[i] = 2;
    }
    const auto count = shape.checked_elements();
    if (!count || *count > 1 << 16) return {};
    memory.emplace_back(static_cast<size_t>(*count) * dtype_size(spec.dtype), std::byte{1});
    memory.back().reserve(1);  // empty arrays too have an address
    out.push_back({spec.dtype, shape, memory.back().data()});
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ModelOptions options;
  options.threads = 1;
  options.max_run_bytes = kMaxBytes;
  std::shared_ptr<Model> model;
  try {
    model = Model::load_bytes(std::as_bytes(std::span(data, size)), options);
  } catch (const Error& e) {
    require(e.code() == ErrorCode::kModel || e.code() == ErrorCode::kUnsupportedOp, e.what());
    return 0;
  }
  std::vector<std::vector<std::byte>> memory;
  const std::vector<TensorView> inputs = ones(model->inputs(), memory);
  if (inputs.size() != model->inputs().size()) return 0;
  std::vector<Shape> shapes;
  for (const TensorView& input : inputs) shapes.push_back(input.shape);
  try {
    model->acquire(shapes);  // compiles
  } catch (const Error&) {
    return 0;
  }
  if (model->estimate_nanos(shapes) > kMaxNanos) return 0;
  Sink sink;
  const Status status = model->run(inputs, sink);
  require(status.ok() || !status.message.empty(), "errors say something");
  return 0;
}
