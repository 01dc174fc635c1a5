// Linear layers that follow each other, as one kernel: a block takes a few rows through all of them. What lies between
// the layers stays in shared memory, and all blocks read the weights. Sums have the chunks of their layers
// (kernels/summation.h), so the bits are those of the products one by one.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/vmath/vmath.h"

namespace inferkit::kernels::cuda {

inline constexpr int kMostMlpLayers = 8;

/// y = f(x W + bias). In shared memory the chunks of a row of x lie `room` floats apart, so that each begins at an
/// address that 16 divides.
struct MlpLayer {
  const float* w;     // [k][wide], at an address that 8 divides
  const float* bias;  // n values, or null
  int32_t k, n, chunk;
  int32_t wide, chunks, room;  // as cut_layer() sets them; wide: n, or one more where that is odd
  float alpha, beta;           // of act
  Unary act;
};
inline void cut_layer(MlpLayer& l) {
  l.wide = (l.n + 1) / 2 * 2;
  l.chunks = (l.k + l.chunk - 1) / l.chunk;
  l.room = (l.chunk + 3) / 4 * 4;
}

struct MlpParams {
  const float* x;       // m rows of the first layer's k
  float* y;             // m rows of the last layer's n
  uint64_t* words;      // where not null: the elements go there and not to y, with the run's number as upper halves
  const uint32_t* run;  // the number, for block b at run[b * run_step]
  int64_t m;
  int32_t run_step;
  int32_t count;  // of layers
  int32_t parts;  // floats of shared memory before the sums of chunks
  MlpLayer layers[kMostMlpLayers];
};

/// Floats of shared memory before the rows: the first is the run's number.
inline constexpr int kMlpHead = 4;

}  // namespace inferkit::kernels::cuda
