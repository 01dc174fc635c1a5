// The driver's library, libcuda.so.1, opened when somebody asks for a CUDA device and never before. Its functions are
// declared here, so that neither CUDA's headers nor its libraries are needed to build; where they are there,
// tests/cpp/cuda/test_driver.cc compares the two.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace inferkit::driver {

using Result = int;  // CUresult; 0 is success
using Device = int;
using Context = struct CUctx_st*;
using Stream = struct CUstream_st*;
using Graph = struct CUgraph_st*;
using GraphExec = struct CUgraphExec_st*;
using Module = struct CUmod_st*;
using Function = struct CUfunc_st*;
using Event = struct CUevent_st*;
using Address = unsigned long long;

inline constexpr Result kOutOfMemory = 2;
inline constexpr int kMajor = 75, kMinor = 76;  // CUdevice_attribute: the compute capability
inline constexpr unsigned kNonBlocking = 1;     // CU_STREAM_NON_BLOCKING
inline constexpr unsigned kExternal = 1;        // CU_EVENT_RECORD_EXTERNAL: a capture keeps it as a node of its own
inline constexpr unsigned kNoTiming = 2;        // CU_EVENT_DISABLE_TIMING
inline constexpr unsigned kPortable = 1, kMapped = 2;
inline constexpr int kThreadLocal = 1;                         // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
inline constexpr int kLocalBytes = 3, kMostDynamicShared = 8;  // CUfunction_attribute
inline constexpr int kMemoryType = 2, kDeviceOrdinal = 9;      // CUpointer_attribute
inline constexpr unsigned kDeviceMemory = 2;                   // CU_MEMORYTYPE_DEVICE
inline constexpr Result kInvalidValue = 1, kInvalidContext = 201, kInvalidHandle = 400, kNotReady = 600;

// name in Driver, symbol, parameters
#define INFERKIT_CUDA_DRIVER(X)                                                                                  \
  X(init, cuInit, (unsigned flags))                                                                              \
  X(driver_version, cuDriverGetVersion, (int* version))                                                          \
  X(error_name, cuGetErrorName, (Result error, const char** name))                                               \
  X(error_text, cuGetErrorString, (Result error, const char** text))                                             \
  X(device_count, cuDeviceGetCount, (int* count))                                                                \
  X(device_get, cuDeviceGet, (Device * device, int ordinal))                                                     \
  X(device_attribute, cuDeviceGetAttribute, (int* value, int attribute, Device device))                          \
  X(context_retain, cuDevicePrimaryCtxRetain, (Context * context, Device device))                                \
  X(context_release, cuDevicePrimaryCtxRelease_v2, (Device device))                                              \
  X(context_push, cuCtxPushCurrent_v2, (Context context))                                                        \
  X(context_pop, cuCtxPopCurrent_v2, (Context * context))                                                        \
  X(memory_allocate, cuMemAlloc_v2, (Address * address, size_t bytes))                                           \
  X(memory_free, cuMemFree_v2, (Address address))                                                                \
  X(memory_info, cuMemGetInfo_v2, (size_t* free, size_t* total))                                                 \
  X(host_allocate, cuMemHostAlloc, (void** memory, size_t bytes, unsigned flags))                                \
  X(host_free, cuMemFreeHost, (void* memory))                                                                    \
  X(copy_async, cuMemcpyAsync, (Address to, Address from, size_t bytes, Stream stream))                          \
  X(take_async, cuMemcpyHtoDAsync_v2, (Address to, const void* from, size_t bytes, Stream stream))               \
  X(module_load, cuModuleLoadData, (Module * module, const void* image))                                         \
  X(module_function, cuModuleGetFunction, (Function * function, Module module, const char* name))                \
  X(function_get, cuFuncGetAttribute, (int* value, int attribute, Function function))                            \
  X(function_set, cuFuncSetAttribute, (Function function, int attribute, int value))                             \
  X(launch, cuLaunchKernel,                                                                                      \
    (Function function, unsigned blocks_x, unsigned blocks_y, unsigned blocks_z, unsigned threads_x,             \
     unsigned threads_y, unsigned threads_z, unsigned shared_bytes, Stream stream, void** params, void** extra)) \
  X(stream_create, cuStreamCreate, (Stream * stream, unsigned flags))                                            \
  X(stream_destroy, cuStreamDestroy_v2, (Stream stream))                                                         \
  X(stream_synchronize, cuStreamSynchronize, (Stream stream))                                                    \
  X(capture_begin, cuStreamBeginCapture_v2, (Stream stream, int mode))                                           \
  X(capture_end, cuStreamEndCapture, (Stream stream, Graph * graph))                                             \
  X(capture_mode, cuThreadExchangeStreamCaptureMode, (int* mode))                                                \
  X(graph_instantiate, cuGraphInstantiateWithFlags, (GraphExec * exec, Graph graph, unsigned long long flags))   \
  X(graph_launch, cuGraphLaunch, (GraphExec exec, Stream stream))                                                \
  X(graph_exec_destroy, cuGraphExecDestroy, (GraphExec exec))                                                    \
  X(graph_destroy, cuGraphDestroy, (Graph graph))                                                                \
  X(event_create, cuEventCreate, (Event * event, unsigned flags))                                                \
  X(event_destroy, cuEventDestroy_v2, (Event event))                                                             \
  X(event_record, cuEventRecordWithFlags, (Event event, Stream stream, unsigned flags))                          \
  X(event_query, cuEventQuery, (Event event))                                                                    \
  X(event_synchronize, cuEventSynchronize, (Event event))                                                        \
  X(stream_wait, cuStreamWaitEvent, (Stream stream, Event event, unsigned flags))                                \
  X(stream_capturing, cuStreamIsCapturing, (Stream stream, int* status))                                         \
  X(pointer_get, cuPointerGetAttribute, (void* value, int attribute, Address address))                           \
  X(event_elapsed, cuEventElapsedTime, (float* milliseconds, Event first, Event last))

struct Driver {
#define INFERKIT_FUNCTION(name, symbol, parameters) Result(*name) parameters = nullptr;
  INFERKIT_CUDA_DRIVER(INFERKIT_FUNCTION)
#undef INFERKIT_FUNCTION
  int devices = 0;
  std::string why_not;  // empty where models can run

  /// The message of an error, with its name.
  std::string describe(Result error) const;
};

/// Opened and asked at the first call. Thread-safe.
const Driver& driver();
/// The same from a library of another name, afresh: for tests.
Driver open_driver(const char* library);

}  // namespace inferkit::driver
