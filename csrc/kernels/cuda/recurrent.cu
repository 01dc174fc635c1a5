#include "kernels/cuda/functions.h"
#include "kernels/cuda/platform.h"
#include "kernels/cuda/recurrent.h"

namespace inferkit::kernels::cuda {
namespace {

INFERKIT_DEVICE F32x16 mix(F32x16 z, F32x16 hidden, F32x16 h) { return fma(z, h, (F32x16{1.0f} - z) * hidden); }

/// The gates of one unit, product and inputs added; z is that of kGruApply.
struct Gates {
  F32x16 first, second, third, fourth, z, of_input;
};

INFERKIT_DEVICE float new_state(const RecurrentParams& p, const Gates& g, float state, float cell, float* next_cell) {
  switch (p.op) {
    case RecurrentStep::kLstm: {
      const F32x16 input = sigmoid(g.first), output = sigmoid(g.second), forget = sigmoid(g.third);
      const F32x16 next = fma(forget, F32x16{cell}, input * tanh(g.fourth));
      *next_cell = next.v;
      return (output * tanh(next)).v;
    }
    case RecurrentStep::kGruAfter:
      return mix(sigmoid(g.first), tanh(fma(sigmoid(g.second), g.third, g.of_input)), F32x16{state}).v;
    case RecurrentStep::kGruReset:
      return (sigmoid(g.second) * F32x16{state}).v;
    case RecurrentStep::kGruApply:
      return mix(sigmoid(g.z), tanh(g.first), F32x16{state}).v;
    case RecurrentStep::kRnn:
      break;
  }
  return apply_unary(p.act, g.first.v, 0, 0);
}

}  // namespace

INFERKIT_KERNEL(recurrent_step, RecurrentParams, 256, 3) {
  INFERKIT_SHARED(float, parts);  // [warp][lane]
  constexpr unsigned kWhole = ~0u;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int units = p.units, of_block = lane % units, gate = lane / units;
  const int32_t unit = static_cast<int32_t>(blockIdx.x) * units + of_block;
  const bool is_one = gate < p.gates && unit < p.hidden;
  const bool apart = p.op == RecurrentStep::kGruAfter && gate == 2;  // the reset gate multiplies its product alone
  const int64_t column = int64_t{gate} * p.hidden + unit;
  const int32_t chunk = apart ? p.last_chunk : p.chunk, chunks = (p.hidden + chunk - 1) / chunk;
  const int32_t shortest = p.op == RecurrentStep::kGruAfter && p.last_chunk < p.chunk ? p.last_chunk : p.chunk;
  const int32_t most = (p.hidden + shortest - 1) / shortest;
  for (int64_t row = blockIdx.y; row < p.batch; row += gridDim.y) {
    const float* const times = p.times + row * p.times_row;
    float* const x = p.x + row * p.x_row;
    float sum = 0;
    for (int32_t first = 0; first < most; first += kRecurrentWarps) {
      float part = 0;
      if (is_one && first + warp < chunks) {
        const int32_t begin = (first + warp) * chunk, end = p.hidden - begin < chunk ? p.hidden : begin + chunk;
        const float* r = p.r + begin * p.r_row + column;
        for (int32_t k = begin; k < end; ++k, r += p.r_row) part = __fmaf_rn(times[k], *r, part);
      }
      parts[warp * 32 + lane] = part;
      __syncthreads();
      for (int32_t w = 0; warp == 0 && w < kRecurrentWarps && first + w < chunks; ++w) {
        sum = first + w == 0 ? parts[w * 32 + lane] : __fadd_rn(sum, parts[w * 32 + lane]);
      }
      __syncthreads();
    }
    if (warp != 0) continue;
    if (apart) {
      if (p.bias && is_one) sum = __fadd_rn(sum, p.bias[unit]);
    } else if (is_one) {
      sum = __fadd_rn(sum, x[column]);
    }
    Gates g{};
    g.first.v = __shfl_sync(kWhole, sum, of_block);
    g.second.v = __shfl_sync(kWhole, sum, (units + of_block) % 32);
    g.third.v = __shfl_sync(kWhole, sum, (2 * units + of_block) % 32);
    g.fourth.v = __shfl_sync(kWhole, sum, (3 * units + of_block) % 32);
    if (gate != 0 || unit >= p.hidden) continue;
    if (p.op == RecurrentStep::kGruAfter) g.of_input.v = x[2 * int64_t{p.hidden} + unit];
    if (p.op == RecurrentStep::kGruApply) g.z.v = x[unit - 2 * int64_t{p.hidden}];
    if (p.op == RecurrentStep::kGruReset) x[unit] = g.first.v;
    float cell = 0, next_cell = 0;
    if (p.op == RecurrentStep::kLstm) cell = p.cell[row * p.cell_row + unit];
    const float next = new_state(p, g, p.state[row * p.state_row + unit], cell, &next_cell);
    p.next[row * p.next_row + unit] = next;
    if (p.op == RecurrentStep::kLstm) p.next_cell[row * p.next_cell_row + unit] = next_cell;
    if (p.y) p.y[row * p.y_row + unit] = next;
  }
}

}  // namespace inferkit::kernels::cuda
