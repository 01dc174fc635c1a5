// Max and average pooling of planes of float. Columns of the window are combined first, from top to bottom, then the
// results from left to right, sums of both by the rule of kernels/summation.h: an output's bits depend on its window
// alone. Rows of padding are left out, columns of it count as zeros. A maximum of zero is +0.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
}

namespace inferkit::kernels {

struct PoolDim {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, pad_begin = 0, pad_end = 0;
};

struct PoolArgs {
  const float* x = nullptr;  // planes of h.in x w.in
  float* y = nullptr;        // planes of h.out x w.out
  PoolDim h, w;
  bool include_pad = false;  // average: padding (not what ceil_mode adds behind it) counts as zeros
  // Average of windows of three dimensions: each row of the window is the same row of `slices` slices, one below the
  // other, and counts as `counted` of them: those of padding are not there.
  int64_t slices = 1, counted = 1;
};

inline constexpr int64_t kPoolRow = 4096;
/// Floats of the padded row that a kernel of planes keeps on its stack; must not be more than kPoolRow. (static: every
/// tier has its own copy.)
static constexpr int64_t pool_row_elements(const PoolDim& w) {
  const int64_t read = (w.out + 15) / 16 * 16 * w.stride + (w.kernel - 1) * w.dilation + 16;
  const int64_t written = w.pad_begin + w.in;
  return read > written ? read : written;
}

struct PoolKernels {
  const char* (*compiled_isa)();
  void (*max)(const PoolArgs& args, int64_t planes);      // NaN in a window gives NaN; an empty window -inf
  void (*average)(const PoolArgs& args, int64_t planes);  // an empty window gives 0
  // The same over blocks of sixteen planes whose pixels lie side by side, of rows [first, last) of the outputs of all
  // blocks, as if they were one below the other. Rows of any length.
  void (*max_of_blocks)(const PoolArgs& args, int64_t first, int64_t last);
  void (*average_of_blocks)(const PoolArgs& args, int64_t first, int64_t last);
};

const PoolKernels& pool_kernels();  // of the active tier
const PoolKernels& pool_kernels(Isa isa);

}  // namespace inferkit::kernels
