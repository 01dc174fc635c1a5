// The kernels by number, for those who launch them: kernels.inc with their parameters.
#pragma once
#include "kernels/cuda/arg.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/conv.h"
#include "kernels/cuda/conv_half.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/gemm_half.h"
#include "kernels/cuda/integers.h"
#include "kernels/cuda/lines.h"
#include "kernels/cuda/mlp.h"
#include "kernels/cuda/movement.h"
#include "kernels/cuda/pool.h"
#include "kernels/cuda/recurrent.h"
#include "kernels/cuda/resize.h"
#include "kernels/cuda/rows.h"

namespace inferkit::kernels::cuda {

enum class Kernel : uint8_t {
#define INFERKIT_CUDA_KERNEL(name, Params, threads) name,
#include "kernels/cuda/kernels.inc"
#undef INFERKIT_CUDA_KERNEL
};

struct KernelInfo {
  const char* name;  // in the image, after "inferkit_"
  size_t params_bytes;
  unsigned most_threads;
};
inline constexpr KernelInfo kKernels[] = {
#define INFERKIT_CUDA_KERNEL(name, Params, threads) {#name, sizeof(Params), threads},
#include "kernels/cuda/kernels.inc"
#undef INFERKIT_CUDA_KERNEL
};
inline constexpr size_t kKernelCount = sizeof(kKernels) / sizeof(kKernels[0]);

}  // namespace inferkit::kernels::cuda
