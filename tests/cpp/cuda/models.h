// Whole models in tests of CUDA: their inputs, and the answers of two devices side by side.
#pragma once
#include <algorithm>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../engine/graphs.h"
#include "backend_on_host.h"
#include "base/error.h"
#include "device/cuda/cuda.h"
#include "support.h"

namespace inferkit::testing {

struct Input {
  DType dtype;
  Shape shape;
  std::vector<std::byte> bytes;
};
inline Input input_of(DType dtype, const Shape& shape, std::span<const std::byte> bytes) {
  return {dtype, shape, {bytes.begin(), bytes.end()}};
}
inline Input floats(Shape shape, uint32_t seed) {
  const auto values = random_floats(static_cast<size_t>(shape.elements()), seed, -2, 2);
  return input_of(DType::kF32, shape, std::as_bytes(std::span(values)));
}
inline Input integers(Shape shape, const std::vector<int64_t>& values) {
  return input_of(DType::kI64, shape, std::as_bytes(std::span(values)));
}

inline std::vector<std::vector<std::byte>> answers(Model& model, const std::vector<Input>& inputs) {
  std::vector<TensorView> views;
  for (const Input& in : inputs) views.push_back({in.dtype, in.shape, in.bytes.data()});
  VectorSink sink;
  if (const Status status = model.run(views, sink); !status.ok()) throw Error(status);
  return sink.values;
}

/// The CPU's answers are of the active tier.
inline bool comparable() {
  const auto fusing = fusing_isas();
  if (std::ranges::find(fusing, active_isa()) == fusing.end()) skipped() = "the active tier has other bits than CUDA";
  return skipped().empty();
}

/// The device whose answers are compared with the CPU's: the emulator's, or with INFERKIT_TEST_ON_DEVICE=1 in the
/// environment the machine's own. The driver that the tests bring must then not be the first that is found:
/// LD_PRELOAD=libcuda.so.1 puts the machine's before it. What asks for the emulator by itself is skipped then.
class Compared {
 public:
  explicit Compared(cuda_on_host::Figures& figures) {
    if (!cuda_on_host::is_off()) own_ = cuda_on_host::make_device(figures);
  }
  bool emulated() const { return own_ != nullptr; }
  CudaDevice& device() const { return own_ ? *own_ : cuda_device(); }

 private:
  std::unique_ptr<CudaDevice> own_;
};

inline ModelOptions on(Device& device) {
  ModelOptions options;
  options.device = &device;
  return options;
}

/// Nobody has memory of the device any more; what its pools keep goes back, so that what is counted is what leaks.
inline void nothing_is_in_use(CudaDevice& device) {
  CHECK_EQ(device.memory().device.outstanding, size_t{0});
  CHECK_EQ(device.memory().pinned.outstanding, size_t{0});
  CHECK_EQ(device.memory().weight_bytes, size_t{0});
  device.trim();
}

inline std::string data(const char* name) { return std::string(INFERKIT_TEST_DATA) + "/" + name; }

inline std::vector<Input> sentences(int64_t batch, int64_t length, uint32_t seed) {
  std::mt19937 draw(seed);
  std::vector<int64_t> ids, mask;
  for (int64_t row = 0; row < batch; ++row) {
    const auto words = 1 + static_cast<int64_t>(draw()) % length;
    for (int64_t i = 0; i < length; ++i) {
      ids.push_back(static_cast<int64_t>(draw() % 30));
      mask.push_back(i < words ? 1 : 0);
    }
  }
  return {integers({batch, length}, ids), integers({batch, length}, mask)};
}

/// Compares runs on inputs(batch, seed), each after set_seed(seed).
template <class Inputs, class SetSeed>
bool same_answers(Model& there, Model& here, const std::string& name, std::initializer_list<int64_t> batches,
                  Inputs inputs, SetSeed set_seed) {
  for (const int64_t batch : batches) {
    for (const uint64_t seed : kSeeds) {
      set_seed(seed);
      const auto in = inputs(batch, static_cast<uint32_t>(seed));
      const auto got = answers(there, in), want = answers(here, in);
      CHECK_EQ(got.size(), want.size());
      for (size_t i = 0; i < want.size(); ++i) {
        CHECK_EQ(got[i].size(), want[i].size());
        const auto* a = reinterpret_cast<const float*>(got[i].data());
        const auto* b = reinterpret_cast<const float*>(want[i].data());
        const size_t n = want[i].size() / sizeof(float);
        if (!same_values(a, b, n, cat(name, ", batch ", batch, ", output ", i, ", seed ", seed))) return false;
      }
    }
  }
  return true;
}

}  // namespace inferkit::testing
