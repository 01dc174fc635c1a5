#include "device/cuda/driver.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "driver_on_host.h"
#include "kernels_on_host.h"
#include "platform/float_environment.h"

// The types of the driver's handles, by the names that device/cuda/driver.h declares in its own namespace.
namespace inferkit::driver {
struct CUctx_st {
  Device device;
};
struct CUmod_st {};
struct CUfunc_st {
  const kernels::cuda::KernelInfo* info;
  size_t number;
  bool loaded = false;
  size_t most_shared = size_t{48} << 10;
};
struct Work {
  std::function<void()> run;
  Event records = nullptr;
};
struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};
struct CUevent_st {
  int64_t launches = -1;  // until it was recorded
  bool pending = false;   // until what it records is done
  bool timed = true;
  Stream stream = nullptr;  // that it was recorded in last
};
struct CUstream_st {
  bool capturing = false, broken = false;
  std::vector<Work> captured, pending;
};
}  // namespace inferkit::driver

namespace inferkit::driver {
namespace {

enum : Result {
  kSuccess = 0,
  kNotInitialized = 3,
  kInvalidDevice = 101,
  kNoBinary = 209,
  kNotFound = 500,
  kIllegalAddress = 700,
  kCaptureUnsupported = 900,
  kCaptureInvalidated = 901
};

struct Held {
  size_t bytes;
  bool pinned;
};

/// Never destroyed: who holds memory of the device at the end of the process gives it back then.
struct State {
  std::mutex mutex;  // for all that follows
  bool started = false;
  std::map<uintptr_t, Held> blocks;
  std::set<Stream> streams;
  CUstream_st legacy;  // every thread's default stream
  std::set<Event> events;
  std::set<Graph> graphs;
  std::set<GraphExec> execs;
  int64_t retained = 0;  // how often the context is
  std::map<std::string, std::unique_ptr<CUfunc_st>> functions;
  CUctx_st contexts[2] = {{0}, {1}};
  CUmod_st module;
  int64_t memory = int64_t{1} << 34;
  std::atomic<int64_t> launches{0}, captures{0};
  std::atomic<uint64_t> seed{1};
  std::atomic<bool> breaks{false}, broken{false};
};
State& state() {
  static State& all = *new State;
  return all;
}

thread_local std::vector<Context> current;
thread_local Stream capturing = nullptr;  // of this thread
thread_local int mode = 0;                // CU_STREAM_CAPTURE_MODE_GLOBAL

/// Says why on stderr: an error's number alone would not tell.
Result refuse(Result error, const std::string& why) {
  std::cerr << "libcuda.so.1 of the tests: " << why << "\n";
  return error;
}

Result check(const char* what) {
  if (!state().started) return refuse(kNotInitialized, std::string(what) + " before cuInit");
  if (current.empty()) return refuse(kInvalidContext, std::string(what) + " without a context");
  return state().broken ? kIllegalAddress : kSuccess;
}
/// What allocates, or waits for a device, may not stand in a capture of this thread, and breaks it; nor in one of
/// another thread, where this one has the mode that it has at first.
Result check_unsafe(const char* what) {
  if (const Result error = check(what)) return error;
  if (mode == 0) return refuse(kInvalidValue, std::string(what) + " would break the captures of other threads");
  if (!capturing) return kSuccess;
  capturing->broken = true;
  return refuse(kCaptureUnsupported, std::string(what) + " during a capture");
}

enum class Place { kElsewhere, kDevice, kPinned, kBeyond };
Place place(Address address, size_t bytes) {
  State& s = state();
  auto after = s.blocks.upper_bound(address);
  if (after == s.blocks.begin()) return Place::kElsewhere;
  const auto& [begin, held] = *--after;
  if (address - begin >= held.bytes) return Place::kElsewhere;
  if (address - begin + bytes > held.bytes) return Place::kBeyond;
  return held.pinned ? Place::kPinned : Place::kDevice;
}

void* poisoned(size_t bytes) {
  constexpr size_t kAlign = 256;
  void* const memory = std::aligned_alloc(kAlign, (bytes + kAlign - 1) / kAlign * kAlign);
  if (memory) std::memset(memory, 0xff, bytes);
  return memory;
}

Result allocate(uintptr_t& out, size_t bytes, bool pinned) {
  State& s = state();
  if (bytes == 0) return kInvalidValue;
  const std::scoped_lock lock(s.mutex);
  if (!pinned && static_cast<int64_t>(bytes) > s.memory) return kOutOfMemory;
  void* const memory = poisoned(bytes);
  if (!memory) return kOutOfMemory;
  if (!pinned) s.memory -= static_cast<int64_t>(bytes);
  out = reinterpret_cast<uintptr_t>(memory);
  s.blocks[out] = {bytes, pinned};
  return kSuccess;
}
Result release(uintptr_t at, bool pinned, const char* what) {
  State& s = state();
  const std::scoped_lock lock(s.mutex);
  const auto found = s.blocks.find(at);
  if (found == s.blocks.end() || found->second.pinned != pinned) {
    return refuse(kInvalidValue, std::string(what) + " of what is no such block");
  }
  if (!pinned) s.memory += static_cast<int64_t>(found->second.bytes);
  s.blocks.erase(found);
  std::free(reinterpret_cast<void*>(at));
  return kSuccess;
}

/// The default streams have numbers for handles.
Stream resolve(Stream stream) {
  const auto number = reinterpret_cast<uintptr_t>(stream);
  return number == 1 || number == 2 ? &state().legacy : stream;
}
bool known(Stream stream) {
  if (stream == &state().legacy) return true;
  const std::scoped_lock lock(state().mutex);
  return state().streams.contains(stream);
}
bool known(Event event) {
  const std::scoped_lock lock(state().mutex);
  return state().events.contains(event);
}

std::recursive_mutex doing;  // what is late is done by one thread at a time: it may be another's

/// Into the capture, or late.
Result put(Stream stream, Work work) {
  const std::scoped_lock one_by_one(doing);
  if (stream->broken) return kCaptureInvalidated;
  if (work.records && !stream->capturing) work.records->pending = true;
  (stream->capturing ? stream->captured : stream->pending).push_back(std::move(work));
  return kSuccess;
}

/// Of the blocks that were there when it was asked for: a graph that outlives its memory copies what is somebody
/// else's.
void copy_within_blocks(uintptr_t to, uintptr_t from, size_t bytes) {
  {
    const std::scoped_lock lock(state().mutex);
    for (const uintptr_t at : {to, from}) {
      const Place now = place(at, bytes);
      if (now != Place::kDevice && now != Place::kPinned) throw std::runtime_error("a copy whose memory is gone");
    }
  }
  std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
}

/// A container of images, of which one is for the device that this driver has: 64 bits, compute capability 9.0.
bool has_kernels_of_90(const std::byte* image) {
  const auto number = [&](size_t at, auto value) {
    std::memcpy(&value, image + at, sizeof(value));
    return value;
  };
  constexpr size_t kNewHeader = 16, kLeastOfEntry = 32;
  constexpr uint16_t kElf = 2;
  if (number(4, uint16_t{}) != 1 || number(6, uint16_t{}) != kNewHeader) return false;
  const size_t end = kNewHeader + number(8, uint64_t{});
  for (size_t at = kNewHeader; at + kLeastOfEntry <= end;) {
    const uint32_t header = number(at + 4, uint32_t{});
    const uint64_t bytes = number(at + 8, uint64_t{});
    if (header < kLeastOfEntry || bytes > end - at) return false;
    if (number(at, uint16_t{}) == kElf && number(at + 28, uint32_t{}) == 90) return true;
    at += header + bytes;
  }
  return false;
}

Result do_all(Stream stream) {
  State& s = state();
  const std::scoped_lock one_by_one(doing);
  const FloatEnvironment flushing;  // the kernels are compiled with -ftz=true
  try {
    for (const Work& work : std::exchange(stream->pending, {})) {
      work.run();
      if (work.records) work.records->pending = false;
    }
  } catch (const std::exception& error) {
    s.broken = true;
    return refuse(kIllegalAddress, error.what());
  }
  if (s.breaks.exchange(false)) s.broken = true;
  return s.broken ? kIllegalAddress : kSuccess;
}

}  // namespace

// The functions by the declarations of device/cuda/driver.h, so that these are what is tested.
#define INFERKIT_DECLARE(name, symbol, parameters) \
  extern "C" __attribute__((visibility("default"))) Result symbol parameters;
INFERKIT_CUDA_DRIVER(INFERKIT_DECLARE)
#undef INFERKIT_DECLARE

Result cuInit(unsigned flags) {
  cuda_on_host::keep_on();
  if (flags != 0) return kInvalidValue;
  state().started = true;
  return kSuccess;
}
Result cuDriverGetVersion(int* version) {
  *version = 13000;
  return kSuccess;
}
Result cuGetErrorName(Result error, const char** name) {
  *name = error == kOutOfMemory      ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == kIllegalAddress ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                                     : "CUDA_ERROR";
  return kSuccess;
}
Result cuGetErrorString(Result error, const char** text) {
  *text = error == kOutOfMemory      ? "out of memory"
          : error == kIllegalAddress ? "an illegal memory access was encountered"
                                     : "an error of the tests' driver";
  return kSuccess;
}
Result cuDeviceGetCount(int* count) {
  *count = 1;
  return state().started ? kSuccess : kNotInitialized;
}
Result cuDeviceGet(Device* device, int ordinal) {
  if (!state().started) return refuse(kNotInitialized, "cuDeviceGet before cuInit");
  *device = ordinal;
  return ordinal == 0 ? kSuccess : kInvalidDevice;
}
Result cuDeviceGetAttribute(int* value, int attribute, Device device) {
  if (device != 0) return kInvalidDevice;
  *value = attribute == kMajor ? 9 : 0;
  return attribute == kMajor || attribute == kMinor ? kSuccess : kInvalidValue;
}
Result cuDevicePrimaryCtxRetain(Context* context, Device device) {
  if (device != 0) return kInvalidDevice;
  const std::scoped_lock lock(state().mutex);
  ++state().retained;
  *context = &state().contexts[0];
  return kSuccess;
}
Result cuDevicePrimaryCtxRelease_v2(Device device) {
  const std::scoped_lock lock(state().mutex);
  if (device != 0 || state().retained == 0) return refuse(kInvalidContext, "a context goes that nobody holds");
  --state().retained;
  return kSuccess;
}
Result cuCtxPushCurrent_v2(Context context) {
  const std::scoped_lock lock(state().mutex);
  if (context != &state().contexts[0] || state().retained == 0) {
    return refuse(kInvalidContext, "cuCtxPushCurrent of no context");
  }
  current.push_back(context);
  return kSuccess;
}
Result cuCtxPopCurrent_v2(Context* context) {
  if (current.empty()) return refuse(kInvalidContext, "cuCtxPopCurrent without a context");
  if (current.size() == 1 && mode != 0) return refuse(kInvalidValue, "the thread's capture mode did not come back");
  *context = current.back();
  current.pop_back();
  return kSuccess;
}
Result cuMemAlloc_v2(Address* address, size_t bytes) {
  if (const Result error = check_unsafe("cuMemAlloc")) return error;
  uintptr_t at = 0;
  const Result error = allocate(at, bytes, false);
  *address = at;
  return error;
}
Result cuMemFree_v2(Address address) {
  if (const Result error = check_unsafe("cuMemFree")) return error;
  return release(address, false, "cuMemFree");
}
Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  const std::scoped_lock lock(state().mutex);
  *free = static_cast<size_t>(std::max<int64_t>(state().memory, 0));
  *total = size_t{1} << 34;
  return kSuccess;
}
Result cuMemHostAlloc(void** memory, size_t bytes, unsigned flags) {
  if (const Result error = check_unsafe("cuMemHostAlloc")) return error;
  // Kernels have its address as it is, which they have not where it is write-combined.
  if (flags != (kPortable | kMapped)) return refuse(kInvalidValue, "pinned memory that not all contexts reach");
  uintptr_t at = 0;
  const Result error = allocate(at, bytes, true);
  *memory = reinterpret_cast<void*>(at);
  return error;
}
Result cuMemFreeHost(void* memory) {
  if (const Result error = check_unsafe("cuMemFreeHost")) return error;
  return release(reinterpret_cast<uintptr_t>(memory), true, "cuMemFreeHost");
}
Result cuMemcpyAsync(Address to, Address from, size_t bytes, Stream stream) {
  if (const Result error = check("cuMemcpyAsync")) return error;
  if (!known(stream)) return refuse(kInvalidHandle, "cuMemcpyAsync into no stream");
  Place target{}, source{};
  {
    const std::scoped_lock lock(state().mutex);
    target = place(to, bytes);
    source = place(from, bytes);
  }
  if (target == Place::kBeyond || source == Place::kBeyond) return refuse(kInvalidValue, "a copy leaves its block");
  if (target == Place::kElsewhere || source == Place::kElsewhere) {
    return refuse(kInvalidValue,
                  "a copy of memory of a kind that the driver cannot tell: neither pinned nor a device's");
  }
  if (bytes == 0) return refuse(kInvalidValue, "a copy of nothing, which is no node of a graph");
  if (to < from + bytes && from < to + bytes) return refuse(kInvalidValue, "a copy over itself");
  return put(stream, {[=] { copy_within_blocks(to, from, bytes); }});
}
Result cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream stream) {
  if (const Result error = check("cuMemcpyHtoDAsync")) return error;
  if (!known(stream)) return refuse(kInvalidHandle, "cuMemcpyHtoDAsync into no stream");
  Place source{};
  {
    const std::scoped_lock lock(state().mutex);
    source = place(reinterpret_cast<uintptr_t>(from), bytes);
    if (place(to, bytes) != Place::kDevice) return refuse(kInvalidValue, "cuMemcpyHtoDAsync to no block of a device");
  }
  if (source == Place::kDevice || source == Place::kBeyond)
    return refuse(kInvalidValue, "a copy from no host's memory");
  if (source == Place::kPinned) {
    return put(stream, {[=] { copy_within_blocks(to, reinterpret_cast<uintptr_t>(from), bytes); }});
  }
  if (stream->capturing) {
    stream->broken = true;
    return refuse(kCaptureUnsupported, "a copy of memory that is not pinned, during a capture");
  }
  // Read at once, and there when the stream has been waited for.
  auto staged = std::make_shared<std::vector<std::byte>>(bytes);
  std::memcpy(staged->data(), from, bytes);
  return put(stream, {[=] { std::memcpy(reinterpret_cast<void*>(to), staged->data(), staged->size()); }});
}
Result cuModuleLoadData(Module* module, const void* image) {
  if (const Result error = check_unsafe("cuModuleLoadData")) return error;
  constexpr uint32_t kFatbin = 0xba55ed50;
  uint32_t magic = 0;
  std::memcpy(&magic, image, sizeof(magic));
  if (magic != kFatbin || reinterpret_cast<uintptr_t>(image) % 8 != 0)
    return refuse(kInvalidValue, "no image of kernels");
  if (!has_kernels_of_90(static_cast<const std::byte*>(image))) {
    return refuse(kNoBinary, "an image without kernels for compute capability 9.0");
  }
  {
    const std::scoped_lock lock(state().mutex);
    constexpr int64_t kOfAModule = 4096;  // as much as it takes here
    if (state().memory < kOfAModule) return kOutOfMemory;
  }
  *module = &state().module;
  return kSuccess;
}
Result cuModuleGetFunction(Function* function, Module module, const char* name) {
  if (const Result error = check_unsafe("cuModuleGetFunction")) return error;
  if (module != &state().module) return refuse(kInvalidHandle, "cuModuleGetFunction of no module");
  const std::scoped_lock lock(state().mutex);
  for (size_t i = 0; i < kernels::cuda::kKernelCount; ++i) {
    const auto& info = kernels::cuda::kKernels[i];
    if (std::string("inferkit_") + info.name != name) continue;
    auto& made = state().functions[name];
    if (!made) made = std::make_unique<CUfunc_st>(CUfunc_st{&info, i});
    *function = made.get();
    return kSuccess;
  }
  return kNotFound;
}
Result cuFuncGetAttribute(int* value, int attribute, Function function) {
  if (const Result error = check_unsafe("cuFuncGetAttribute")) return error;
  if (attribute != kLocalBytes || !function) return kInvalidValue;
  function->loaded = true;
  *value = 0;
  return kSuccess;
}
Result cuFuncSetAttribute(Function function, int attribute, int value) {
  if (const Result error = check_unsafe("cuFuncSetAttribute")) return error;
  if (attribute != kMostDynamicShared || value < 0 || value > 227 << 10) return kInvalidValue;
  function->most_shared = static_cast<size_t>(value);
  return kSuccess;
}
Result cuLaunchKernel(Function function, unsigned blocks_x, unsigned blocks_y, unsigned blocks_z, unsigned threads_x,
                      unsigned threads_y, unsigned threads_z, unsigned shared_bytes, Stream stream, void** params,
                      void** extra) {
  if (const Result error = check("cuLaunchKernel")) return error;
  if (!known(stream)) return refuse(kInvalidHandle, "cuLaunchKernel into no stream");
  if (!function->loaded) return refuse(kCaptureUnsupported, "a kernel that was not loaded before its launch");
  // What every device takes: without cuFuncSetAttribute 48 KiB of shared memory, and 4 KiB of parameters.
  constexpr size_t kMostParams = 4096;
  constexpr unsigned kMostBlocks = (1u << 31) - 1;
  if (function->info->params_bytes > kMostParams || blocks_x > kMostBlocks || threads_x * threads_y * threads_z == 0) {
    return refuse(kInvalidValue, std::string("a launch that no device takes, of ") + function->info->name);
  }
  if (extra || !params || threads_x * threads_y * threads_z > function->info->most_threads ||
      shared_bytes > function->most_shared || blocks_y > 65535 || blocks_z > 65535 || blocks_x == 0 || blocks_y == 0 ||
      blocks_z == 0) {
    return refuse(kInvalidValue, std::string("a launch that a device refuses, of ") + function->info->name);
  }
  const size_t bytes = function->info->params_bytes;
  std::shared_ptr<std::byte[]> copy(new (std::align_val_t{16}) std::byte[bytes],
                                    [](std::byte* at) { ::operator delete[](at, std::align_val_t{16}); });
  std::memcpy(copy.get(), params[0], bytes);
  const cuda_on_host::Grid grid{.blocks = {blocks_x, blocks_y, blocks_z},
                                .threads = {threads_x, threads_y, threads_z},
                                .shared_bytes = shared_bytes};
  return put(stream, {[grid, copy, number = function->number] {
               cuda_on_host::Grid seeded = grid;
               seeded.seed = state().seed++;
               ++state().launches;
               cuda_on_host::launch(static_cast<kernels::cuda::Kernel>(number), seeded, copy.get());
             }});
}
Result cuStreamCreate(Stream* stream, unsigned flags) {
  if (const Result error = check_unsafe("cuStreamCreate")) return error;
  if (flags != kNonBlocking) return refuse(kInvalidValue, "a stream that waits for the default one");
  *stream = new CUstream_st;
  const std::scoped_lock lock(state().mutex);
  state().streams.insert(*stream);
  return kSuccess;
}
Result cuStreamDestroy_v2(Stream stream) {
  if (const Result error = check("cuStreamDestroy")) return error;
  if (!known(stream)) return refuse(kInvalidHandle, "cuStreamDestroy of no stream");
  if (stream->capturing) return refuse(kInvalidValue, "a stream ends in the middle of its capture");
  if (!stream->pending.empty()) return refuse(kInvalidValue, "a stream ends before its work");
  const std::scoped_lock lock(state().mutex);
  state().streams.erase(stream);
  delete stream;
  return kSuccess;
}
Result cuStreamSynchronize(Stream stream) {
  if (const Result error = check_unsafe("cuStreamSynchronize")) return error;
  stream = resolve(stream);
  if (!known(stream)) return refuse(kInvalidHandle, "cuStreamSynchronize of no stream");
  return do_all(stream);
}
Result cuStreamBeginCapture_v2(Stream stream, int capture_mode) {
  if (const Result error = check("cuStreamBeginCapture")) return error;
  if (!known(stream) || capturing) return refuse(kInvalidValue, "a capture within another");
  if (capture_mode != kThreadLocal) return refuse(kInvalidValue, "a capture that other threads would break");
  ++state().captures;
  capturing = stream;
  stream->capturing = true;
  stream->broken = false;
  return kSuccess;
}
Result cuStreamEndCapture(Stream stream, Graph* graph) {
  *graph = nullptr;
  if (const Result error = check("cuStreamEndCapture")) return error;
  if (stream != capturing) return refuse(kInvalidValue, "the end of a capture that this thread did not begin");
  capturing = nullptr;
  stream->capturing = false;
  auto work = std::exchange(stream->captured, {});
  if (std::exchange(stream->broken, false)) return kCaptureInvalidated;
  *graph = new CUgraph_st{std::move(work)};
  const std::scoped_lock lock(state().mutex);
  state().graphs.insert(*graph);
  return kSuccess;
}
Result cuThreadExchangeStreamCaptureMode(int* other) {
  std::swap(*other, mode);
  return kSuccess;
}
Result cuGraphInstantiateWithFlags(GraphExec* exec, Graph graph, unsigned long long flags) {
  if (const Result error = check_unsafe("cuGraphInstantiate")) return error;
  const std::scoped_lock lock(state().mutex);
  if (flags != 0 || !state().graphs.contains(graph)) return refuse(kInvalidValue, "cuGraphInstantiate of no graph");
  constexpr int64_t kOfAGraph = 1024;  // as much as it takes at most here
  if (state().memory < kOfAGraph) return kOutOfMemory;
  *exec = new CUgraphExec_st{graph->work};
  state().execs.insert(*exec);
  return kSuccess;
}
Result cuGraphLaunch(GraphExec exec, Stream stream) {
  if (const Result error = check("cuGraphLaunch")) return error;
  if (!known(stream)) return refuse(kInvalidHandle, "cuGraphLaunch into no stream");
  if (stream->capturing) return refuse(kInvalidValue, "a graph that a capture would make a part of another");
  {
    const std::scoped_lock lock(state().mutex);
    if (!state().execs.contains(exec)) return refuse(kInvalidValue, "cuGraphLaunch of no graph");
    for (const Work& work : exec->work) {
      if (work.records && !state().events.contains(work.records)) {
        return refuse(kInvalidValue, "a graph whose events are gone");
      }
    }
  }
  for (const Work& work : exec->work) {
    if (const Result error = put(stream, work)) return error;
  }
  return kSuccess;
}
Result cuGraphExecDestroy(GraphExec exec) {
  const std::scoped_lock lock(state().mutex);
  if (state().execs.erase(exec) == 0) return refuse(kInvalidValue, "cuGraphExecDestroy of no graph");
  delete exec;
  return kSuccess;
}
Result cuEventCreate(Event* event, unsigned flags) {
  if (const Result error = check_unsafe("cuEventCreate")) return error;
  if (flags != 0 && flags != kNoTiming) return refuse(kInvalidValue, "an event of another kind");
  *event = new CUevent_st;
  (*event)->timed = flags == 0;
  const std::scoped_lock lock(state().mutex);
  state().events.insert(*event);
  return kSuccess;
}
Result cuEventDestroy_v2(Event event) {
  if (const Result error = check("cuEventDestroy")) return error;
  const std::scoped_lock lock(state().mutex);
  if (state().events.erase(event) == 0) return refuse(kInvalidValue, "cuEventDestroy of no event");
  if (!event->pending) delete event;  // else it is somewhere in a stream still
  return kSuccess;
}
Result cuEventRecordWithFlags(Event event, Stream stream, unsigned flags) {
  if (const Result error = check("cuEventRecord")) return error;
  stream = resolve(stream);
  if (!known(stream)) return refuse(kInvalidHandle, "cuEventRecord into no stream");
  if (!known(event)) return refuse(kInvalidHandle, "cuEventRecord of no event");
  if (stream->capturing && flags != kExternal) {
    return refuse(kInvalidValue, "an event that a capture takes for an order and not for a time");
  }
  if (!stream->capturing && flags != 0) return refuse(kInvalidValue, "an event for a capture, and there is none");
  if (!stream->capturing) event->stream = stream;
  return put(stream, {[event] { event->launches = state().launches; }, event});
}
Result cuEventQuery(Event event) {
  if (const Result error = check_unsafe("cuEventQuery")) return error;
  if (!known(event)) return refuse(kInvalidHandle, "cuEventQuery of no event");
  return event->pending ? kNotReady : kSuccess;
}
Result cuEventSynchronize(Event event) {
  if (const Result error = check_unsafe("cuEventSynchronize")) return error;
  if (!known(event)) return refuse(kInvalidHandle, "cuEventSynchronize of no event");
  return event->pending ? do_all(event->stream) : kSuccess;
}
Result cuStreamWaitEvent(Stream stream, Event event, unsigned flags) {
  if (const Result error = check("cuStreamWaitEvent")) return error;
  stream = resolve(stream);
  if (!known(stream)) return refuse(kInvalidHandle, "cuStreamWaitEvent of no stream");
  if (!known(event)) return refuse(kInvalidHandle, "cuStreamWaitEvent for no event");
  if (flags != 0 || stream->capturing) return refuse(kInvalidValue, "a wait of another kind, or in a capture");
  // For what it records now: it may be recorded anew, or end, before the wait is over.
  const Stream other = event->pending ? event->stream : nullptr;
  return put(stream, {[other] {
               if (other && known(other) && do_all(other) != kSuccess)
                 throw std::runtime_error("another stream failed");
             }});
}
Result cuStreamIsCapturing(Stream stream, int* status) {
  if (const Result error = check("cuStreamIsCapturing")) return error;
  stream = resolve(stream);
  if (!known(stream)) return refuse(kInvalidHandle, "cuStreamIsCapturing of no stream");
  *status = stream->broken ? 2 : stream->capturing ? 1 : 0;
  return kSuccess;
}
Result cuPointerGetAttribute(void* value, int attribute, Address address) {
  if (const Result error = check("cuPointerGetAttribute")) return error;
  const std::scoped_lock lock(state().mutex);
  const Place at = place(address, 1);
  if (at != Place::kDevice && at != Place::kPinned) return kInvalidValue;
  if (attribute == kMemoryType) {
    *static_cast<unsigned*>(value) = at == Place::kDevice ? kDeviceMemory : 1;
  } else if (attribute == kDeviceOrdinal) {
    *static_cast<int*>(value) = 0;
  } else {
    return refuse(kInvalidValue, "an attribute that nobody asks for");
  }
  return kSuccess;
}
Result cuEventElapsedTime(float* milliseconds, Event first, Event last) {
  if (const Result error = check("cuEventElapsedTime")) return error;
  if (!known(first) || !known(last)) return refuse(kInvalidHandle, "the time between no events");
  if (!first->timed || !last->timed) return refuse(kInvalidHandle, "the time of an event that takes none");
  if (first->pending || last->pending) return refuse(kNotReady, "the time of what is not done yet");
  if (first->launches < 0 || last->launches < 0) return refuse(kInvalidHandle, "an event that was not recorded");
  *milliseconds = static_cast<float>(last->launches - first->launches) / 1000;
  return kSuccess;
}
Result cuGraphDestroy(Graph graph) {
  const std::scoped_lock lock(state().mutex);
  if (state().graphs.erase(graph) == 0) return refuse(kInvalidValue, "cuGraphDestroy of no graph");
  delete graph;
  return kSuccess;
}

}  // namespace inferkit::driver

extern "C" {

__attribute__((visibility("default"))) void cuda_on_host_figures(CudaOnHostFigures* out) {
  auto& s = inferkit::driver::state();
  const std::scoped_lock lock(s.mutex);
  *out = {};
  for (const auto& [at, held] : s.blocks) ++(held.pinned ? out->pinned : out->allocations);
  out->streams = static_cast<int64_t>(s.streams.size());
  out->graphs = static_cast<int64_t>(s.graphs.size() + s.execs.size());
  out->events = static_cast<int64_t>(s.events.size());
  out->contexts = s.retained;
  out->launches = s.launches;
  out->captures = s.captures;
}
__attribute__((visibility("default"))) void cuda_on_host_memory(int64_t bytes) {
  auto& s = inferkit::driver::state();
  const std::scoped_lock lock(s.mutex);
  s.memory = bytes;
}
__attribute__((visibility("default"))) void cuda_on_host_break() {
  auto& s = inferkit::driver::state();
  if (s.broken.exchange(false)) return;
  s.breaks = true;
}
}
