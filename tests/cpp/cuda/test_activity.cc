// What a device does, counted: the meter by itself, and over the tests' device.
#include "backend_on_host.h"
#include "device/cuda/activity.h"
#include "driver_on_host.h"
#include "models.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

TEST(graphs_beside_each_other_keep_a_device_busy_once) {
  ManualClock clock(1000);
  ActivityMeter meter(clock);
  CHECK_EQ(meter.now().busy, Nanos{0});
  {
    const ActivityMeter::Launch first(meter, 10, 1);
    clock.advance(5);
    {
      const ActivityMeter::Launch second(meter, 20, 2);
      clock.advance(7);
      CHECK_EQ(meter.now().running, 2);
      CHECK_EQ(meter.now().busy, Nanos{12});
    }
    clock.advance(1);
    CHECK_EQ(meter.now().busy, Nanos{13});
  }
  clock.advance(100);
  const CudaActivity idle = meter.now();
  CHECK_EQ(idle.busy, Nanos{13});
  CHECK_EQ(idle.running, 0);
  CHECK_EQ(idle.launches, uint64_t{2});
  CHECK_EQ(idle.in_bytes, uint64_t{30});
  CHECK_EQ(idle.out_bytes, uint64_t{3});
  {
    const ActivityMeter::Launch third(meter, 0, 0);
    clock.advance(4);
  }
  CHECK_EQ(meter.now().busy, Nanos{17});
}

TEST(runs_of_a_model_are_counted_with_what_they_copy) {
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const auto model = Model::load(data("graph/mlp.onnx"), on(*device));
  CHECK_EQ(device->activity().launches, uint64_t{0});
  const auto outputs = answers(*model, {floats({3, 4}, 1)});
  answers(*model, {floats({3, 4}, 2)});
  answers(*model, {floats({5, 4}, 2)});
  const CudaActivity now = device->activity();
  CHECK_EQ(now.launches, uint64_t{3});
  CHECK_EQ(now.failures, uint64_t{0});
  CHECK_EQ(now.in_bytes, (3 + 3 + 5) * 4 * sizeof(float));
  CHECK_EQ(now.out_bytes, (3 + 3 + 5) * (outputs.at(0).size() / 3));
  CHECK_EQ(now.uploaded_bytes, device->memory().weight_bytes);
  CHECK(now.uploaded_bytes > 0);
  CHECK_EQ(now.running, 0);
}

TEST(a_run_that_the_device_fails_is_counted_as_one) {
  if (!has_cuda_kernels()) {
    skipped() = "this build has no CUDA kernels: nvcc was not found";
    return;
  }
  const auto model = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
  answers(*model, {floats({2, 4}, 1)});
  const CudaActivity before = cuda_device().activity();
  cuda_on_host_break();
  try {
    answers(*model, {floats({2, 4}, 1)});
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kDevice);
  }
  cuda_on_host_break();
  const CudaActivity after = cuda_device().activity();
  CHECK_EQ(after.failures, before.failures + 1);
  CHECK_EQ(after.launches, before.launches + 1);
  CHECK_EQ(after.running, 0);
  CHECK(cuda_devices_in_use() == std::vector<int>{0});
}

}  // namespace
