// A CUDA device of the driver. Nothing here has run on a device yet; the tests run it over a driver of their own
// (tests/cuda_on_host/driver.cc).
#include <array>
#include <atomic>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "base/cat.h"
#include "base/counted.h"
#include "base/error.h"
#include "base/immortal.h"
#include "device/cuda/cuda.h"
#include "device/cuda/driver.h"
#include "device/cuda/image.h"
#include "device/cuda/own_process.h"

namespace inferkit {
namespace {

using driver::Address;

/// Throws what `error` is.
void require(driver::Result error, const char* what) {
  if (error == 0) return;
  // A graph, a stream or a kernel needs memory of the device as well.
  const ErrorCode code = error == driver::kOutOfMemory ? ErrorCode::kPoolExhausted : ErrorCode::kDevice;
  throw Error(code, cat("the CUDA device failed to ", what, ": ", driver::driver().describe(error)));
}

Address address_of(const void* memory) { return reinterpret_cast<Address>(memory); }

/// The context of a device, which a child of fork() does not inherit.
struct Context {
  driver::Context handle = nullptr;
  OwnProcess process = {};
};

/// The device's primary context, which libraries of a process share, for as long as this lives: it takes hundreds of
/// megabytes of the device, and goes when nobody holds it any more.
class PrimaryContext {
 public:
  explicit PrimaryContext(int index) {
    require(driver::driver().device_get(&device_, index), "answer");
    require(driver::driver().context_retain(&context_.handle, device_), "make a context");
  }
  ~PrimaryContext() {
    if (context_.process.is_this()) driver::driver().context_release(device_);
  }
  PrimaryContext(const PrimaryContext&) = delete;
  PrimaryContext& operator=(const PrimaryContext&) = delete;
  const Context& get() const { return context_; }

 private:
  driver::Device device_ = 0;
  Context context_;
};

/// Makes the device's context that of this thread while it lives: the thread's own comes back. So does the thread's way
/// with captures of others: as it is by default, a call that allocates would break a capture that another library has
/// begun on another thread, and fail.
class Current {
 public:
  explicit Current(const Context& context) {
    context.process.require();
    require(driver::driver().context_push(context.handle), "enter its context");
    driver::driver().capture_mode(&mode_);
  }
  ~Current() {
    driver::driver().capture_mode(&mode_);
    driver::Context ours = nullptr;
    driver::driver().context_pop(&ours);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int mode_ = driver::kThreadLocal;  // exchanged: while this lives, what the thread had
};

class DriverStream {
 public:
  DriverStream() { require(driver::driver().stream_create(&stream_, driver::kNonBlocking), "create a stream"); }
  ~DriverStream() { driver::driver().stream_destroy(stream_); }
  DriverStream(const DriverStream&) = delete;
  DriverStream& operator=(const DriverStream&) = delete;
  driver::Stream get() const { return stream_; }

 private:
  driver::Stream stream_ = nullptr;
};

/// The marks of a graph.
class DriverEvents {
 public:
  explicit DriverEvents(size_t count) {
    events_.reserve(count);
    while (events_.size() < count) {
      driver::Event event = nullptr;
      if (const driver::Result error = driver::driver().event_create(&event, 0); error != 0) {
        drop();
        require(error, "create an event");
      }
      events_.push_back(event);
    }
  }
  ~DriverEvents() { drop(); }
  DriverEvents(const DriverEvents&) = delete;
  DriverEvents& operator=(const DriverEvents&) = delete;
  driver::Event operator[](size_t i) const { return events_.at(i); }

 private:
  void drop() noexcept {
    for (const driver::Event event : events_) driver::driver().event_destroy(event);
  }
  std::vector<driver::Event> events_;
};

class Kernels;

/// A stream that other libraries are told of, and that is told of theirs.
class DriverLane final : public CudaLane {
 public:
  DriverLane(const Context& context, Kernels& kernels) : context_(context), kernels_(kernels) {
    const Current current(context_);
    stream_ = std::make_unique<DriverStream>();
    require(driver::driver().event_create(&event_, driver::kNoTiming), "create an event");
  }
  ~DriverLane() override {
    try {
      const Current current(context_);
      driver::driver().event_destroy(event_);
      stream_.reset();
    } catch (const Error&) {  // a device that failed has nothing to give back
      std::ignore = stream_.release();
    }
  }
  driver::Stream stream() const { return stream_->get(); }
  uintptr_t handle() const override { return reinterpret_cast<uintptr_t>(stream_->get()); }
  void wait_for(uintptr_t handle) override {
    const Current current(context_);
    const auto stream = reinterpret_cast<driver::Stream>(handle);
    const driver::Driver& driver = driver::driver();
    // A wait for what is being captured would make this lane a part of the capture.
    int capturing = 0;
    driver::Result error = driver.stream_capturing(stream, &capturing);
    if (error == 0 && capturing != 0) {
      throw Error(ErrorCode::kValidation, Reason::kNone,
                  "its stream is being captured into a graph: call the model before or after the capture");
    }
    if (error == 0) error = driver.event_record(event_, stream, 0);
    if (error == 0) error = driver.stream_wait(stream_->get(), event_, 0);
    if (error == 0) return;
    if (error == driver::kInvalidValue || error == driver::kInvalidHandle || error == driver::kInvalidContext) {
      throw Error(ErrorCode::kValidation, Reason::kNone,
                  cat("its stream is none of the device's primary context: ", driver.describe(error)));
    }
    require(error, "wait for a stream");
  }
  bool is_captured() override {
    const Current current(context_);
    int capturing = 0;
    return driver::driver().stream_capturing(stream_->get(), &capturing) != 0 || capturing != 0;
  }
  void wait() override {
    const Current current(context_);
    require(driver::driver().stream_synchronize(stream_->get()), "run what an array goes through");
  }
  void launch(const KernelLaunch& what, std::span<const std::byte> params) override;
  void copy(void* to, const void* from, size_t bytes) override {
    if (bytes == 0) return;
    const Current current(context_);
    require(driver::driver().copy_async(address_of(to), address_of(from), bytes, stream_->get()), "copy");
  }

 private:
  const Context context_;
  Kernels& kernels_;
  std::unique_ptr<DriverStream> stream_;
  driver::Event event_ = nullptr;
};

class DriverMark final : public CudaMark {
 public:
  DriverMark(const Context& context, driver::Stream stream) : context_(context) {
    const Current current(context_);
    require(driver::driver().event_create(&event_, driver::kNoTiming), "create an event");
    if (const driver::Result error = driver::driver().event_record(event_, stream, 0); error != 0) {
      driver::driver().event_destroy(event_);
      require(error, "note a point in a stream");
    }
  }
  ~DriverMark() override {
    try {
      const Current current(context_);
      driver::driver().event_destroy(event_);
    } catch (const Error&) {  // a device that failed has nothing to give back
    }
  }
  // What fails is over: nothing runs on a device that has failed.
  bool is_over() noexcept override {
    return ask([&] { return driver::driver().event_query(event_); }) != driver::kNotReady;
  }
  void wait() noexcept override {
    ask([&] { return driver::driver().event_synchronize(event_); });
  }

 private:
  template <class F>
  driver::Result ask(F&& f) noexcept {
    try {
      const Current current(context_);
      return f();
    } catch (const Error&) {
      return 0;
    }
  }
  const Context context_;
  driver::Event event_ = nullptr;
};

class DriverGraph final : public CudaGraph {
 public:
  DriverGraph(const Context& context, std::unique_ptr<DriverStream> stream, std::unique_ptr<DriverEvents> marks,
              driver::Graph graph)
      : context_(context), stream_(std::move(stream)), marks_(std::move(marks)) {
    const driver::Result error = driver::driver().graph_instantiate(&exec_, graph, 0);
    driver::driver().graph_destroy(graph);
    require(error, "make a graph of the launches");
  }
  ~DriverGraph() override {
    try {
      const Current current(context_);
      driver::driver().graph_exec_destroy(exec_);
      marks_.reset();
      stream_.reset();
    } catch (const Error&) {  // a device that failed has nothing to give back, and a child of fork() asks no driver
      std::ignore = marks_.release();
      std::ignore = stream_.release();
    }
  }
  void begin() override {
    const Current current(context_);
    require(driver::driver().graph_launch(exec_, stream_->get()), "launch a graph");
  }
  void wait() override {
    const Current current(context_);
    require(driver::driver().stream_synchronize(stream_->get()), "run a graph");
  }
  void start(CudaLane& lane) override {
    const Current current(context_);
    require(driver::driver().graph_launch(exec_, static_cast<DriverLane&>(lane).stream()), "launch a graph");
  }
  Nanos between(size_t first, size_t last) override {
    const Current current(context_);
    float milliseconds = 0;
    require(driver::driver().event_elapsed(&milliseconds, (*marks_)[first], (*marks_)[last]), "tell a time");
    return static_cast<Nanos>(static_cast<double>(milliseconds) * 1e6);
  }

 private:
  const Context context_;
  std::unique_ptr<DriverStream> stream_;
  std::unique_ptr<DriverEvents> marks_;
  driver::GraphExec exec_ = nullptr;
};

/// The kernels of a context.
class Kernels {
 public:
  void load() {
    const driver::Result error = driver::driver().module_load(&module_, cuda_image);
    if (error == 0) return;
    int version = 0;
    driver::driver().driver_version(&version);
    require(error, cat("load the kernels of this build (", cuda_targets, ") with a driver for CUDA ", version / 1000,
                       ".", version % 1000 / 10, ", which must not be older than the nvcc that compiled them")
                       .c_str());
  }
  driver::Function get(const KernelLaunch& what) {
    const std::scoped_lock lock(mutex_);
    Held& held = functions_[what.kernel];
    const driver::Driver& driver = driver::driver();
    if (!held.function) {
      driver::Function found = nullptr;
      const std::string name = cat("inferkit_", what.name);
      require(driver.module_function(&found, module_, name.c_str()), "find a kernel");
      // Asking for an attribute loads what the driver would load at the first launch, which may be while it captures.
      int bytes = 0;
      require(driver.function_get(&bytes, driver::kLocalBytes, found), "load a kernel");
      held.function = found;
    }
    if (what.shared_bytes > held.shared_bytes) {
      require(driver.function_set(held.function, driver::kMostDynamicShared, static_cast<int>(what.shared_bytes)),
              "leave a kernel the shared memory that it needs");
      held.shared_bytes = what.shared_bytes;
    }
    return held.function;
  }

 private:
  struct Held {
    driver::Function function = nullptr;
    size_t shared_bytes = size_t{48} << 10;  // what every launch may have without being asked
  };
  driver::Module module_ = nullptr;
  std::mutex mutex_;  // for functions_
  std::map<size_t, Held> functions_;
};

void put_launch(Kernels& kernels, const KernelLaunch& what, std::span<const std::byte> params, driver::Stream stream) {
  void* arguments[] = {const_cast<std::byte*>(params.data())};  // the driver copies it
  const auto& [x, y, z] = what.blocks;
  require(driver::driver().launch(kernels.get(what), x, y, z, what.threads, 1, 1,
                                  static_cast<unsigned>(what.shared_bytes), stream, arguments, nullptr),
          "launch a kernel");
}

void DriverLane::launch(const KernelLaunch& what, std::span<const std::byte> params) {
  const Current current(context_);
  put_launch(kernels_, what, params, stream_->get());
}

class DriverQueue final : public LaunchQueue {
 public:
  DriverQueue(Kernels& kernels, driver::Stream stream, const DriverEvents& marks)
      : kernels_(kernels), stream_(stream), marks_(marks) {}
  void launch(const KernelLaunch& what, std::span<const std::byte> params) override {
    put_launch(kernels_, what, params, stream_);
  }
  void copy(void* to, const void* from, size_t bytes) override {
    if (bytes == 0) return;  // no node of a graph
    require(driver::driver().copy_async(address_of(to), address_of(from), bytes, stream_), "copy");
  }
  void mark(size_t number) override {
    require(driver::driver().event_record(marks_[number], stream_, driver::kExternal), "note a time");
  }

 private:
  Kernels& kernels_;
  const driver::Stream stream_;
  const DriverEvents& marks_;
};

/// Finds the kernels that are asked for, and does nothing else: loading one while a capture is under way may break it.
class FindingQueue final : public LaunchQueue {
 public:
  explicit FindingQueue(Kernels& kernels) : kernels_(kernels) {}
  void launch(const KernelLaunch& what, std::span<const std::byte>) override { kernels_.get(what); }
  void copy(void*, const void*, size_t) override {}
  void mark(size_t) override {}

 private:
  Kernels& kernels_;
};

class DriverBackend final : public CudaBackend {
 public:
  explicit DriverBackend(int index) : number_(index), primary_(index), context_(primary_.get()) {
    const Current current(context_);
    kernels_.load();
    uploads_ = std::make_unique<DriverStream>();
  }

  void* allocate(size_t bytes) override {
    const Current current(context_);
    Address memory = 0;
    const driver::Result error = driver::driver().memory_allocate(&memory, bytes);
    if (error == driver::kOutOfMemory) {
      size_t left = 0, total = 0;
      driver::driver().memory_info(&left, &total);
      throw Error(ErrorCode::kPoolExhausted, cat("the CUDA device has no ", counted(bytes, "byte"),
                                                 " left for a run: ", left, " of its ", total, " bytes are free"));
    }
    require(error, "allocate memory");
    return reinterpret_cast<void*>(memory);
  }
  void release(void* memory) noexcept override {
    drop([&] { driver::driver().memory_free(address_of(memory)); });
  }
  void* allocate_pinned(size_t bytes) override {
    const Current current(context_);
    void* memory = nullptr;
    const driver::Result error = driver::driver().host_allocate(&memory, bytes, driver::kPortable | driver::kMapped);
    if (error == driver::kOutOfMemory) {
      throw Error(ErrorCode::kPoolExhausted,
                  cat("there is no room for ", counted(bytes, "byte"), " more of pinned memory"));
    }
    require(error, "pin memory of the host");
    return memory;
  }
  void release_pinned(void* memory) noexcept override {
    drop([&] { driver::driver().host_free(memory); });
  }
  void upload(void* to, const void* from, size_t bytes) override {
    const Current current(context_);
    // Said to come from the host: what kind of memory an address is of, drivers can tell only of memory that they know.
    // A copy from memory that is not pinned returns when it has been read, and not when it has arrived: streams that do
    // not wait for each other would not wait for that.
    require(driver::driver().take_async(address_of(to), from, bytes, uploads_->get()), "take weights");
    require(driver::driver().stream_synchronize(uploads_->get()), "take weights");
  }
  std::unique_ptr<CudaGraph> capture(const FunctionRef<void(LaunchQueue&)>& record, size_t marks) override {
    const Current current(context_);
    FindingQueue finding(kernels_);
    record(finding);
    auto stream = std::make_unique<DriverStream>();
    auto events = std::make_unique<DriverEvents>(marks);
    require(driver::driver().capture_begin(stream->get(), driver::kThreadLocal), "begin a capture");
    driver::Graph graph = nullptr;
    try {
      DriverQueue queue(kernels_, stream->get(), *events);
      record(queue);
    } catch (...) {
      if (driver::driver().capture_end(stream->get(), &graph) == 0) driver::driver().graph_destroy(graph);
      throw;
    }
    require(driver::driver().capture_end(stream->get(), &graph), "end a capture");
    return std::make_unique<DriverGraph>(context_, std::move(stream), std::move(events), graph);
  }
  std::unique_ptr<CudaLane> lane() override {
    const Current current(context_);  // also for what is dropped where not all of it can be made
    return std::make_unique<DriverLane>(context_, kernels_);
  }
  std::unique_ptr<CudaMark> mark(uintptr_t stream) noexcept override {
    try {
      return std::make_unique<DriverMark>(context_, reinterpret_cast<driver::Stream>(stream));
    } catch (const std::exception&) {  // its memory goes another way
      return nullptr;
    }
  }
  int device_of(const void* memory) noexcept override {
    try {
      const Current current(context_);
      unsigned type = 0;
      int number = kNobody;
      const driver::Driver& driver = driver::driver();
      if (driver.pointer_get(&type, driver::kMemoryType, address_of(memory)) != 0) return kNobody;
      if (type != driver::kDeviceMemory) return kHost;
      return driver.pointer_get(&number, driver::kDeviceOrdinal, address_of(memory)) == 0 ? number : kNobody;
    } catch (const Error&) {
      return kNobody;
    }
  }
  int number() const override { return number_; }

 private:
  template <class F>
  void drop(F&& release) noexcept {
    try {
      const Current current(context_);
      release();
    } catch (const Error&) {  // a device that failed has nothing to give back
    }
  }

  const int number_;
  const PrimaryContext primary_;
  const Context context_;
  Kernels kernels_;
  std::unique_ptr<DriverStream> uploads_;  // one for all: the copies of constants are few
};

/// Made when the first is asked for, and never destroyed.
struct Devices {
  const OwnProcess process = {};
  std::mutex mutex;  // for made
  std::map<int, std::unique_ptr<CudaDevice>> made;
};
/// Released when it is set, acquired by who only looks: they see it whole.
std::atomic<Devices*> devices{nullptr};

constexpr int kLeastMajor = 8;  // of the compute capability that kernels are compiled for

}  // namespace

bool has_cuda_kernels() { return cuda_image != nullptr; }

std::string why_no_cuda(int index) {
  if (!has_cuda_kernels()) return "this build of inferkit has no CUDA kernels: nvcc was not found when it was built";
  const driver::Driver& driver = driver::driver();
  if (!driver.why_not.empty()) return driver.why_not;
  if (index < 0 || index >= driver.devices) {
    return cat("there is no CUDA device ", index, ": the driver has ", driver.devices);
  }
  driver::Device device = 0;
  int major = 0, minor = 0;
  if (driver.device_get(&device, index) != 0 || driver.device_attribute(&major, driver::kMajor, device) != 0 ||
      driver.device_attribute(&minor, driver::kMinor, device) != 0) {
    return cat("CUDA device ", index, " does not answer");
  }
  if (major < kLeastMajor) {
    return cat("CUDA device ", index, " has compute capability ", major, ".", minor, "; ", kLeastMajor,
               ".0 is the least that inferkit runs on");
  }
  return "";
}

CudaDevice& cuda_device(int index) {
  // One that was made stays, whatever the driver says by now: its figures are asked for when it has failed, too.
  if (Devices* const all = devices.load(std::memory_order_acquire); all && all->process.is_this()) {
    const std::scoped_lock lock(all->mutex);
    if (const auto made = all->made.find(index); made != all->made.end() && made->second) return *made->second;
  }
  if (const std::string why = why_no_cuda(index); !why.empty()) {
    throw Error(ErrorCode::kDevice, cat(why, "; leave device out, or give \"cpu\", to run on the CPU"));
  }
  static Devices& all = [&]() -> Devices& {
    devices.store(std::make_unique<Devices>().release(), std::memory_order_release);
    return *devices.load(std::memory_order_relaxed);
  }();
  all.process.require();
  const std::scoped_lock lock(all.mutex);
  auto& device = all.made[index];
  if (!device) device = make_cuda_device(std::make_unique<DriverBackend>(index));
  return *device;
}

std::vector<int> cuda_devices_in_use() {
  std::vector<int> out;
  Devices* const all = devices.load(std::memory_order_acquire);
  if (!all || !all->process.is_this()) return out;
  const std::scoped_lock lock(all->mutex);
  for (const auto& [index, device] : all->made) {
    if (device) out.push_back(index);
  }
  return out;
}

}  // namespace inferkit
