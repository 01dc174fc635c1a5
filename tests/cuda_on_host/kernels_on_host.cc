#include "kernels_on_host.h"

#include <stdexcept>

#include "base/cat.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace kernels::cuda {
// A kernel is a function here; its file is compiled as C++.
#define INFERKIT_CUDA_KERNEL(name, Params, threads) void name(const Params& p);
#include "kernels/cuda/kernels.inc"
#undef INFERKIT_CUDA_KERNEL
}  // namespace kernels::cuda

namespace cuda_on_host {

void launch(kernels::cuda::Kernel kernel, const Grid& grid, const void* params) {
  using namespace kernels::cuda;
  const KernelInfo& info = kKernels[static_cast<size_t>(kernel)];
  if (grid.threads.x * grid.threads.y * grid.threads.z > info.most_threads) {
    throw std::runtime_error(cat(info.name, " takes ", info.most_threads, " threads at most"));
  }
  switch (kernel) {
#define INFERKIT_CUDA_KERNEL(name, Params, threads) \
  case Kernel::name:                                \
    return launch(grid, [&] { kernels::cuda::name(*static_cast<const Params*>(params)); });
#include "kernels/cuda/kernels.inc"
#undef INFERKIT_CUDA_KERNEL
  }
}

}  // namespace cuda_on_host
}  // namespace inferkit
