#include "base/error.h"
#include "base/immortal.h"
#include "device/device.h"

namespace inferkit {
namespace {

class NullDevice final : public Device {
 public:
  DeviceKind kind() const override { return DeviceKind::kNull; }
  std::unique_ptr<Execution> prepare(const Program&, BufferPool&, Nanos*) override {
    throw Error(ErrorCode::kUnsupportedOp, "the null device runs nothing");
  }
  StepFn copy_step() const override { return nullptr; }
  bool borrows_inputs() const override { return false; }
};

}  // namespace

Device& null_device() {
  static NullDevice& device = immortal(NullDevice());
  return device;
}

}  // namespace inferkit
