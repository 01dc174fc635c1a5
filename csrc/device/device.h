// Where programs run. A device has memory, ways to move values in and out of it, and threads or queues of its own; all
// of that is behind two calls: prepare a program, run it on values in the host's memory.
#pragma once
#include <array>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/scan.h"
#include "device/program.h"
#include "memory/buffer_pool.h"
#include "platform/clock.h"

namespace inferkit {

/// Lowerings are for one of them.
enum class DeviceKind : uint8_t {
  kCpu,
  kCuda,
  kNull,  // has no lowerings: what a model would need of a new device can be asked of it
};

std::string_view device_kind_name(DeviceKind kind);

/// A queue of a device with memory of its own.
class CudaLane;

/// An input of a run, where it lies.
struct PlacedInput {
  const void* data = nullptr;
  bool on_device = false;  // else in the host's memory
  /// Puts into a queue what sets *found where a value is not allowed; null where nothing is looked for, as it is of
  /// what lies in the host's memory.
  void (*scan)(LaunchQueue& queue, const void* values, size_t bytes, NonFinite allowed, uint32_t* found) = nullptr;
  NonFinite allowed = NonFinite::kNone;
  bool refused = false;  // by the scan
};

/// What one run at a time of a program needs: its arena, and the operands resolved into addresses of the device. Not
/// thread-safe.
class Execution {
 public:
  virtual ~Execution() = default;
  /// From `inputs` to `outputs`, a pointer into the host's memory for each input and output of the program; over when
  /// it returns. May throw Error, and Stopped where RunControl says so.
  virtual void run(std::span<const void* const> inputs, std::span<void* const> outputs, const ExecContext& context) = 0;
  /// The same from inputs that may lie in the device's memory to outputs that do. False where a scan has found what is
  /// not allowed; then the outputs are not to be used. Nothing of it goes on when it returns or throws.
  virtual bool run_placed(std::span<PlacedInput> /*inputs*/, std::span<void* const> /*outputs*/, CudaLane& /*lane*/,
                          const ExecContext& /*context*/) {
    throw Error(ErrorCode::kDevice, "the device has no memory of its own");
  }
};

/// Kernels that a step launches one after another, all alike.
struct KernelNote {
  std::string kernel;
  std::array<unsigned, 3> blocks = {1, 1, 1};
  unsigned threads = 1;  // of a block
  size_t shared_bytes = 0;
  size_t times = 1;
  bool operator==(const KernelNote&) const = default;
};

/// Lives as long as the process. Thread-safe.
class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  /// `program` must outlive the execution; memory of the host that it needs comes from `pool`. Where `taken` is not
  /// null, each run writes there how long each step took; it must outlive the execution, too.
  virtual std::unique_ptr<Execution> prepare(const Program& program, BufferPool& pool, Nanos* taken = nullptr) = 0;
  /// What a step that is not on_host launches; nothing where steps are functions of the host. `step` is one of
  /// the steps of `program`, which is complete.
  virtual std::vector<KernelNote> kernels(const Program& program, const Step& step) const;
  /// The step with DeviceCopy that copies io[1] to io[0].
  virtual StepFn copy_step() const = 0;
  /// What the device said when a run failed on it; "" where it has not, or a later run went well.
  virtual std::string failure() const;
  /// Whether steps read inputs in the caller's memory, where others may write during the run.
  virtual bool borrows_inputs() const = 0;
};

/// Runs steps on the calling thread, which may call in those of a pool. Its memory is the host's: nothing is copied.
Device& cpu_device();
Device& null_device();

}  // namespace inferkit
