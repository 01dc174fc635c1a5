// libFuzzer: whatever the file, loading it, compiling it and running it once ends in an answer or an Error, in bounded
// time and memory. Build and run as fuzz_onnx; seeds.py writes a corpus of small models of every operator.
#include <bit>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "engine/model/model.h"

using namespace inferkit;

namespace {

constexpr size_t kMaxBytes = size_t{32} << 20;
constexpr int64_t kMaxNanos = 20'000'000;  // as estimated; sanitizers take twenty times as long

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
  char* allocate_text(size_t index, size_t bytes) override {
    if (texts_.size() <= index) texts_.resize(index + 1);
    texts_[index].assign(bytes + 1, '?');
    return texts_[index].data();
  }

 private:
  std::vector<std::vector<std::byte>> outputs_;
  std::vector<std::vector<char>> texts_;
};

/// One value in the types there are.
struct Sample {
  double real;
  int64_t integer;
  uint16_t half;
  std::string_view text = "1";
};
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr Sample kOnes[] = {{1, 1, 0x3c00}};
constexpr Sample kSmall[] = {
    {0, 0, 0, ""}, {1, 1, 0x3c00, "a b\xc3\xa4 \xf0\x9f\x98\x80"}, {2, 2, 0x4000}, {0.5, 1, 0x3800}, {-1, 3, 0xbc00}};
constexpr Sample kOdd[] = {{-1, -1, 0xbc00},
                           {kNaN, std::numeric_limits<int64_t>::min(), 0x7e00},
                           {1e30, std::numeric_limits<int64_t>::max(), 0x7c00},
                           {1e-42, 0x0101010101010101, 0x0001}};
constexpr std::span<const Sample> kFills[] = {kOnes, kSmall, kOdd};

void fill(std::span<std::byte> out, DType dtype, std::span<const Sample> with) {
  const size_t size = dtype_size(dtype);
  for (size_t i = 0; (i + 1) * size <= out.size(); ++i) {
    const Sample& sample = with[i % with.size()];
    const auto write = [&](auto value) { std::memcpy(&out[i * size], &value, std::min(size, sizeof(value))); };
    const auto single = static_cast<float>(sample.real);
    if (dtype == DType::kString) {
      write(sample.text);
    } else if (dtype == DType::kF64) {
      write(sample.real);
    } else if (dtype == DType::kF32) {
      write(single);
    } else if (dtype == DType::kBF16) {
      write(static_cast<uint16_t>(std::bit_cast<uint32_t>(single) >> 16));
    } else if (dtype == DType::kF16) {
      write(sample.half);
    } else if (dtype == DType::kBool) {
      write(sample.integer % 2 != 0);
    } else {
      write(sample.integer);
    }
  }
}

/// An array for every input, free dimensions taken as 2; none where that would be much.
std::vector<TensorView> arrays(std::span<const PortSpec> specs, std::vector<std::vector<std::byte>>& memory) {
  std::vector<TensorView> out;
  for (const PortSpec& spec : specs) {
    Shape shape = spec.shape;
    for (size_t i = 0; i < shape.rank(); ++i) {
      if (shape[i] == Shape::kFree) shape[i] = 2;
    }
    const auto count = shape.checked_elements();
    if (!count || *count > 1 << 16) return {};
    memory.emplace_back(static_cast<size_t>(*count) * dtype_size(spec.dtype));
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
  options.max_iterations = 100;
  options.max_load_nanos = kMaxNanos;
  std::shared_ptr<Model> model;
  try {
    model = Model::load_bytes(std::as_bytes(std::span(data, size)), options);
  } catch (const Error& e) {
    require(e.code() == ErrorCode::kModel || e.code() == ErrorCode::kUnsupportedOp, e.what());
    return 0;
  }
  std::vector<std::vector<std::byte>> memory;
  const std::vector<TensorView> inputs = arrays(model->inputs(), memory);
  if (inputs.size() != model->inputs().size()) return 0;
  std::vector<Shape> shapes;
  for (const TensorView& input : inputs) shapes.push_back(input.shape);
  try {
    model->acquire(shapes);  // compiles
  } catch (const Error&) {
    return 0;
  }
  if (model->estimate_nanos(shapes) > kMaxNanos) return 0;
  // Twice with other values, as plans that follow from values differ and are kept; the file's bytes say which.
  const size_t first = std::accumulate(data, data + size, size_t{0});
  for (size_t run = 0; run < 2; ++run) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      fill(memory[i], inputs[i].dtype, kFills[(first + run) % std::size(kFills)]);
    }
    Sink sink;
    const Status status = model->run(inputs, sink);
    require(status.ok() || !status.message.empty(), "errors say something");
    if (inputs.empty()) break;
  }
  return 0;
}
