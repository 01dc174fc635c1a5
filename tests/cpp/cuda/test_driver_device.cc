// The driver's side of the CUDA device, over the tests' own driver: what the device asks of a driver, and what becomes
// of its errors. That driver takes the place of the machine's; see tests/cuda_on_host/driver.
#include <atomic>
#include <thread>

#include "device/cuda/cuda.h"
#include "driver_on_host.h"
#include "models.h"
#include "platform/fork.h"

#if defined(__linux__)
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace inferkit;
using namespace inferkit::testing;

namespace {

bool has_kernels() {
  if (!has_cuda_kernels()) skipped() = "this build has no CUDA kernels: nvcc was not found";
  return has_cuda_kernels();
}

CudaOnHostFigures figures() {
  CudaOnHostFigures out{};
  cuda_on_host_figures(&out);
  return out;
}

std::vector<Input> rows_of_4(int64_t batch, uint32_t seed) { return {floats({batch, 4}, seed)}; }

template <class Inputs>
void same_through_the_driver(const std::string& path, std::initializer_list<int64_t> batches, Inputs inputs) {
  if (!has_kernels() || !comparable()) return;
  cuda_device().trim();  // what other tests have left in its pools
  const CudaOnHostFigures before = figures();
  {
    const auto there = Model::load(path, on(cuda_device()));
    const auto here = Model::load(path);
    if (!same_answers(*there, *here, path, batches, inputs, [](uint64_t) {})) return;
    CHECK(figures().launches > before.launches);
    CHECK_EQ(figures().captures - before.captures, static_cast<int64_t>(batches.size()));
  }
  nothing_is_in_use(cuda_device());
  const CudaOnHostFigures after = figures();
  CHECK_EQ(after.allocations, before.allocations);
  CHECK_EQ(after.pinned, before.pinned);
  CHECK_EQ(after.graphs, before.graphs);
  CHECK(after.streams <= before.streams + 1);  // that of uploads stays
}

TEST(the_device_is_there) {
  if (!has_kernels()) return;
  CHECK_EQ(why_no_cuda(), "");
  CHECK(why_no_cuda(1).find("there is no CUDA device 1: the driver has 1") != std::string::npos);
}

TEST(an_mlp_through_the_driver_has_the_bits_of_the_cpu) {
  same_through_the_driver(data("graph/mlp.onnx"), {1, 3, 64}, rows_of_4);
}

TEST(an_encoder_through_the_driver_has_the_bits_of_the_cpu) {
  same_through_the_driver(data("graph/encoder.onnx"), {1, 3},
                          [](int64_t batch, uint32_t seed) { return sentences(batch, 6 + batch, seed); });
}

TEST(threads_and_models_share_the_device) {
  if (!has_kernels() || !comparable()) return;
  const auto one = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
  const auto other = Model::load(data("../../examples/digits.onnx"), on(cuda_device()));
  const auto here = Model::load(data("graph/mlp.onnx")), there = Model::load(data("../../examples/digits.onnx"));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 0; i < 5; ++i) {
        const std::vector<Input> small{floats({1 + (t + i) % 3, 4}, t)}, large{floats({1 + i % 2, 64}, t)};
        if (answers(*one, small) != answers(*here, small)) ++wrong;
        if (answers(*other, large) != answers(*there, large)) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

template <class F>
Error error_of(F&& run) {
  try {
    run();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kClosed, "no error");
}

TEST(memory_of_the_driver_that_runs_out_is_an_error_with_figures_and_the_next_run_works) {
  if (!has_kernels()) return;
  const auto model = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
  cuda_device().trim();
  cuda_on_host_memory(100);
  const Error error = error_of([&] { answers(*model, rows_of_4(2, 1)); });
  cuda_on_host_memory(int64_t{1} << 34);
  CHECK(error.code() == ErrorCode::kPoolExhausted);
  CHECK(std::string(error.what()).find("bytes left for a run: 100 of its") != std::string::npos);
  CHECK(std::string(error.what()).find("bytes are in use by inferkit") != std::string::npos);
  CHECK_EQ(answers(*model, rows_of_4(2, 1)).size(), size_t{1});
}

TEST(a_graph_gets_the_memory_that_the_pool_keeps) {
  if (!has_kernels()) return;
  const auto model = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
  const auto want = answers(*model, rows_of_4(2, 1));
  {
    const auto gone = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
    for (const int64_t batch : {2, 200}) answers(*gone, rows_of_4(batch, 1));
  }
  // The pool has a block of the size that the next run takes, and a larger one; the driver itself has nothing left.
  CHECK(cuda_device().memory().device.cached_bytes > 2048);
  cuda_on_host_memory(0);
  const auto got = answers(*Model::load(data("graph/mlp.onnx"), on(cuda_device())), rows_of_4(2, 1));
  cuda_on_host_memory(int64_t{1} << 34);
  CHECK(got == want);
}

TEST(a_device_that_fails_fails_every_run_and_nothing_hangs) {
  if (!has_kernels()) return;
  const auto model = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
  answers(*model, rows_of_4(2, 1));
  cuda_on_host_break();
  const Error first = error_of([&] { answers(*model, rows_of_4(2, 1)); });
  const Error next = error_of([&] { answers(*model, rows_of_4(3, 1)); });
  CHECK_EQ(model->device_failure(), std::string(next.what()));
  cuda_on_host_break();
  CHECK_EQ(answers(*model, rows_of_4(2, 1)).size(), size_t{1});
  CHECK_EQ(model->device_failure(), "");  // which the tests' driver alone brings about
  for (const Error& error : {first, next}) {
    CHECK(error.code() == ErrorCode::kDevice);
    CHECK(std::string(error.what()).find("CUDA_ERROR_ILLEGAL_ADDRESS") != std::string::npos);
  }
}

TEST(a_thread_gets_its_own_context_back) {
  if (!has_kernels()) return;
  // The tests' driver refuses to give up a thread's last context with a capture mode that is not its own, and calls
  // without a context: a run on a thread that has none shows both.
  const auto model = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
  size_t got = 0;
  std::thread([&] { got = answers(*model, rows_of_4(1, 1)).size(); }).join();
  CHECK_EQ(got, size_t{1});
}

TEST(a_child_of_fork_is_told_that_the_device_did_not_go_along) {
  if (!has_kernels()) return;
  const auto model = Model::load(data("graph/mlp.onnx"), on(cuda_device()));
  answers(*model, rows_of_4(1, 1));
  const pid_t child = fork();
  if (child == 0) {
    const Error error = error_of([&] { answers(*model, rows_of_4(1, 1)); });
    const bool told =
        error.code() == ErrorCode::kDevice && std::string(error.what()).find("forked off") != std::string::npos;
    _exit(told ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
