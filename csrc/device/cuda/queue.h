// What the steps of a program for CUDA ask for: a step's function is called once, when its graph is captured, and puts
// launches and copies into the queue; the device runs them at every run, in that order.
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace inferkit {

/// A kernel, by its place in kernels/cuda/kernels.inc and its name there.
struct KernelLaunch {
  size_t kernel = 0;
  const char* name = "";
  std::array<unsigned, 3> blocks = {1, 1, 1};
  unsigned threads = 1;
  size_t shared_bytes = 0;
};

class LaunchQueue {
 public:
  virtual ~LaunchQueue() = default;
  /// `params` is copied.
  virtual void launch(const KernelLaunch& launch, std::span<const std::byte> params) = 0;
  /// Between memory of the device and pinned memory, in any direction.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  /// Note the time when all that is in the queue is done, as mark `number` of a capture that has so many.
  virtual void mark(size_t number) = 0;

  /// Where a kernel that meets data which make its step impossible writes step() + 1; 0 while there are none. The step
  /// with kDividesByZero is one that met a divisor of 0; without, an index that is out of range.
  static constexpr uint32_t kDividesByZero = uint32_t{1} << 31;
  uint32_t* fault() {
    may_fault_ = true;
    return fault_;
  }
  /// Whether somebody has asked where that is.
  bool may_fault() const { return may_fault_; }
  uint32_t step() const { return step_; }

  /// What the host polls for: `bytes` that a run makes at `from`, as words with the number of the run, as DeviceAnswer
  /// says.
  struct Answer {
    const void* from = nullptr;
    size_t bytes = 0;
    uint64_t* words = nullptr;
    const uint32_t* run = nullptr;
  };
  /// For the only kernel of a step, if it makes all the bytes at `from` and need not read any of them: where it writes
  /// words in place of them. Empty where nobody polls; who has asked and is told must write them.
  std::optional<Answer> take_answer(const void* from, size_t bytes) {
    const auto found = std::ranges::find(offered_, from, &Answer::from);
    if (found == offered_.end() || found->bytes != bytes) return {};
    const Answer out = *found;
    offered_.erase(found);
    taken_.push_back(from);
    return out;
  }
  /// An input in pinned memory, where a kernel may read it; the number of the run is beside it as often as blocks want
  /// it, each on a line of its own: block b finds it at run[b * kRunStep].
  struct Given {
    const void* at = nullptr;  // where it would be in the device's memory
    size_t bytes = 0;
    const std::byte* data = nullptr;
    const uint32_t* run = nullptr;
  };
  static constexpr int kRunStep = 32;
  static constexpr int64_t kMostReaders = 128;
  /// For the only kernel of a program that makes all answers and has so many blocks, each of which reads its part of
  /// the input once, by one warp a line. Empty where it is in the device's memory; who has asked and is told must read
  /// it there.
  std::optional<Given> take_input(const void* at, size_t bytes, int64_t blocks) {
    const auto found = std::ranges::find(given_, at, &Given::at);
    if (found == given_.end() || found->bytes != bytes || blocks > kMostReaders) return {};
    readers_ = static_cast<int>(std::max<int64_t>(readers_, blocks));
    return *found;
  }
  void offer_inputs(std::vector<Given> inputs) { given_ = std::move(inputs); }
  /// Blocks that want the run's number beside the inputs; 0 where none has taken one.
  int readers() const { return readers_; }
  void offer_answers(std::vector<Answer> answers) { offered_ = std::move(answers); }
  bool has_taken(const void* from) const { return std::ranges::find(taken_, from) != taken_.end(); }
  void set_fault(uint32_t* fault) { fault_ = fault; }
  void set_step(uint32_t step) { step_ = step; }

 private:
  uint32_t* fault_ = nullptr;
  bool may_fault_ = false;
  std::vector<Answer> offered_;
  std::vector<const void*> taken_;
  std::vector<Given> given_;
  int readers_ = 0;
  uint32_t step_ = 0;
};

}  // namespace inferkit
