// A time step of LSTM, GRU or RNN with the bits of engine/ops/common/recurrent.h and kernels/cpu/recurrent: the state
// times R, in the chunks of kernels/summation.h, added to what the inputs give, and the cell.
#pragma once
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit::kernels::cuda {

enum class RecurrentStep : uint8_t {
  kLstm,      // gates i, o, f, c: cell = s(f) cell + s(i) tanh(c), state = s(o) tanh(cell)
  kGruAfter,  // gates z, r, h: state = (1 - s(z)) tanh(x + s(r) (R state + bias)) + s(z) state
  kGruReset,  // gates z, r: z stays in x, and next = s(r) state, for
  kGruApply,  // gate h: state = (1 - s(z)) tanh(h) + s(z) state, with the z that the former left, and R times that
  kRnn        // state = act(x)
};
constexpr int recurrent_gates(RecurrentStep op) {
  return op == RecurrentStep::kLstm ? 4 : op == RecurrentStep::kGruAfter ? 3 : op == RecurrentStep::kGruReset ? 2 : 1;
}
/// The units that a block makes: each has its gates in one warp.
constexpr int recurrent_units(RecurrentStep op) {
  return recurrent_gates(op) > 2 ? 8 : recurrent_gates(op) == 2 ? 16 : 32;
}

/// Rows of the batch lie so many elements apart. What is written is read by no other block of the launch.
struct RecurrentParams {
  const float* r;      // [hidden, r_row]: R's rows as columns, from the first of this product on
  const float* bias;   // kGruAfter: `hidden` values of the product of gate h, or null
  float* x;            // what the inputs give, `hidden` values a gate; kGruApply has gate z there, too
  const float* times;  // what R multiplies
  const float* state;
  const float* cell;  // kLstm
  float *next, *next_cell;
  float* y;  // gets a copy of `next`; may be null
  int64_t r_row, x_row, times_row, state_row, cell_row, next_row, next_cell_row, y_row;
  int64_t batch;
  int32_t hidden;
  int32_t chunk, last_chunk;  // of the sums; last_chunk: of gate h in kGruAfter
  int32_t gates, units;       // of op: recurrent_gates, recurrent_units
  Unary act;                  // kRnn
  RecurrentStep op;
};

/// gridDim: units, rows of the batch. Warps sum chunks side by side, and the first one adds them.
inline constexpr int kRecurrentWarps = 8;
inline constexpr unsigned kRecurrentThreads = kRecurrentWarps * 32;
inline constexpr size_t kRecurrentShared = kRecurrentThreads * sizeof(float);

}  // namespace inferkit::kernels::cuda
