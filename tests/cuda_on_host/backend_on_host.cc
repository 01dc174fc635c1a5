#include "backend_on_host.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <vector>

#include "base/cat.h"
#include "base/error.h"
#include "device/cuda/cuda.h"
#include "kernels_on_host.h"
#include "platform/float_environment.h"

namespace inferkit::cuda_on_host {
namespace {

class Graph final : public CudaGraph {
 public:
  Graph(std::vector<std::function<void(uint64_t seed)>> work, std::shared_ptr<std::vector<int64_t>> marks,
        Figures& figures)
      : work_(std::move(work)), marks_(std::move(marks)), figures_(figures) {}
  void begin() override {
    if (figures_.loses.exchange(false)) return;
    const FloatEnvironment flushing;  // the kernels are compiled with -ftz=true
    uint64_t seed = figures_.seed.load();
    for (const auto& one : work_) one(seed++);
  }
  void wait() override { ++figures_.waits; }
  void start(CudaLane&) override { begin(); }
  Nanos between(size_t first, size_t last) override { return 1000 * (marks_->at(last) - marks_->at(first)); }

 private:
  const std::vector<std::function<void(uint64_t)>> work_;
  const std::shared_ptr<std::vector<int64_t>> marks_;  // launches until then
  Figures& figures_;
};

class Queue final : public LaunchQueue {
 public:
  Queue(Figures& figures, size_t count) : marks(std::make_shared<std::vector<int64_t>>(count, -1)), figures_(figures) {}
  void launch(const KernelLaunch& what, std::span<const std::byte> params) override {
    const auto& info = kernels::cuda::kKernels[what.kernel];
    if (params.size() != info.params_bytes)
      throw Error(ErrorCode::kDevice, cat("parameters of another size: ", info.name));
    const Grid grid{.blocks = {what.blocks[0], what.blocks[1], what.blocks[2]},
                    .threads = {what.threads},
                    .shared_bytes = what.shared_bytes};
    std::shared_ptr<std::byte[]> copy(new (std::align_val_t{16}) std::byte[params.size()],
                                      [](std::byte* at) { ::operator delete[](at, std::align_val_t{16}); });
    std::memcpy(copy.get(), params.data(), params.size());
    work.push_back(
        [grid, copy, kernel = static_cast<kernels::cuda::Kernel>(what.kernel), this_ = &figures_](uint64_t seed) {
          Grid seeded = grid;
          seeded.seed = seed;
          ++this_->launches;
          cuda_on_host::launch(kernel, seeded, copy.get());
        });
  }
  void copy(void* to, const void* from, size_t bytes) override {
    work.push_back([=, this_ = &figures_](uint64_t) {
      ++this_->copies;
      std::memcpy(to, from, bytes);
    });
  }

  void mark(size_t number) override {
    work.push_back([number, marks = marks, this_ = &figures_](uint64_t) { marks->at(number) = this_->launches; });
  }

  std::vector<std::function<void(uint64_t)>> work;
  const std::shared_ptr<std::vector<int64_t>> marks;

 private:
  Figures& figures_;
};

/// All is done at once: nothing is late here but what others have put into streams, of which there are none.
class Lane final : public CudaLane {
 public:
  explicit Lane(Figures& figures) : figures_(figures) {}
  uintptr_t handle() const override { return reinterpret_cast<uintptr_t>(this); }
  void wait_for(uintptr_t) override {}
  bool is_captured() override { return false; }
  void wait() override {}
  void launch(const KernelLaunch& what, std::span<const std::byte> params) override {
    Queue queue(figures_, 0);
    queue.launch(what, params);
    Graph(std::move(queue.work), queue.marks, figures_).run();
  }
  void copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }

 private:
  Figures& figures_;
};

class Backend final : public CudaBackend {
 public:
  explicit Backend(Figures& figures) : figures_(figures) {}

  void* allocate(size_t bytes) override {
    if (figures_.memory.fetch_sub(static_cast<int64_t>(bytes)) < static_cast<int64_t>(bytes)) {
      figures_.memory += static_cast<int64_t>(bytes);
      throw Error(ErrorCode::kPoolExhausted, cat("the device has no ", bytes, " bytes of memory left"));
    }
    ++figures_.allocations;
    void* const memory = poisoned(bytes);
    const std::scoped_lock lock(mutex_);
    sizes_[memory] = bytes;
    return memory;
  }
  void release(void* memory) noexcept override {
    --figures_.allocations;
    {
      const std::scoped_lock lock(mutex_);
      figures_.memory += static_cast<int64_t>(sizes_.extract(memory).mapped());
    }
    std::free(memory);
  }
  void forget(void* memory, size_t bytes) noexcept override { std::memset(memory, 0xff, bytes); }
  void* allocate_pinned(size_t bytes) override {
    ++figures_.pinned;
    return poisoned(bytes);
  }
  void release_pinned(void* memory) noexcept override {
    --figures_.pinned;
    std::free(memory);
  }
  void upload(void* to, const void* from, size_t bytes) override {
    ++figures_.uploads;
    std::memcpy(to, from, bytes);
  }
  std::unique_ptr<CudaGraph> capture(const FunctionRef<void(LaunchQueue&)>& record, size_t marks) override {
    ++figures_.captures;
    Queue queue(figures_, marks);
    record(queue);
    return std::make_unique<Graph>(std::move(queue.work), queue.marks, figures_);
  }
  std::unique_ptr<CudaLane> lane() override { return std::make_unique<Lane>(figures_); }
  std::unique_ptr<CudaMark> mark(uintptr_t) noexcept override { return nullptr; }
  int device_of(const void*) noexcept override { return number(); }

 private:
  static void* poisoned(size_t bytes) {
    constexpr size_t kAlign = 256;
    void* const memory = std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign);
    if (!memory) throw std::bad_alloc();
    std::memset(memory, 0xff, bytes);
    return memory;
  }

  Figures& figures_;
  std::mutex mutex_;  // for sizes_
  std::map<void*, size_t> sizes_;
};

}  // namespace

std::unique_ptr<CudaDevice> make_device(Figures& figures) {
  require_on();
  return make_cuda_device(std::make_unique<Backend>(figures));
}

}  // namespace inferkit::cuda_on_host
