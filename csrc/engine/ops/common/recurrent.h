// What LSTM, GRU and RNN share: shapes, weights, and the walk over time. x W of all time steps is one product; then
// each step multiplies the state by R and applies the cell. Float32 runs on packed weights; the half types are widened
// to it and rounded once at the end; float64 runs plain loops. Weights that are bytes are multiplied as such
// (row_product.h). The bits of a batch row depend on that row alone.
#pragma once
#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "engine/compile/lower.h"
#include "engine/ops/common/recurrent_activation.h"
#include "engine/ops/common/row_product.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "kernels/cpu/recurrent/recurrent.h"

namespace inferkit {

enum class CellKind : uint8_t { kLstm, kGru, kRnn };

/// OpSchema::mixed_axes: the steps, of the input alone.
inline Axes mixed_by_recurrence(const NodeContext& c, size_t i) {
  return i == 0 ? one_axis(c.attr_int("layout", 0) == 0 ? 0 : 1) : Axes{0};
}

struct RecurrentParams {
  int64_t steps, batch, hidden, gates;
  int64_t x_step, x_row;                      // strides of the products x W, in elements
  int64_t y_step, y_row;                      // of Y
  int64_t y_offset;                           // where this direction begins in Y
  int64_t state_row;                          // stride of the rows of initial and final states
  int64_t state_offset;                       // where this direction begins there
  int64_t r_offset, p_offset;                 // this direction's part of R and P, where they are not packed
  bool reverse, coupled, reset_after, plain;  // plain: the usual activations, nothing else
  bool bf16;                                  // R is of pairs, and products are in bf16
  double clip;                                // 0 for none
  RowWeights bytes;                           // R, where the weights are bytes
  RecurrentActivation f, g, h;
};

/// The operands of a walk, in the order of io; those of row_product for R, where the weights are bytes, come behind. W
/// is float or double.
template <class W>
struct RecurrentIo {
  W *y, *y_h, *y_c, *products, *state, *cell, *spare;
  const W *r, *r_hidden, *hidden_bias, *h0, *c0, *peepholes;
  const int32_t* lengths;

  explicit RecurrentIo(std::byte* const* io)
      : y(at(io, 0)),
        y_h(at(io, 1)),
        y_c(at(io, 2)),
        products(at(io, 3)),
        state(at(io, 4)),
        cell(at(io, 5)),
        spare(at(io, 6)),
        r(at(io, 7)),
        r_hidden(at(io, 8)),
        hidden_bias(at(io, 9)),
        h0(at(io, 10)),
        c0(at(io, 11)),
        peepholes(at(io, 12)),
        lengths(reinterpret_cast<const int32_t*>(io[13])) {}  // kLengthsOperand

 private:
  static W* at(std::byte* const* io, size_t i) { return reinterpret_cast<W*>(io[i]); }
};

/// One time step of `rows` neighbours of the batch; state, cell and spare have `hidden` elements a row.
template <class W>
struct RecurrentBlock {
  const RecurrentParams& p;
  const RecurrentIo<W>& io;
  int64_t first, rows, t;
  const ExecContext* threads;  // null where the block is one of several

  bool active(int64_t row) const { return !io.lengths || t < io.lengths[first + row]; }
  W* gates(int64_t row) const { return io.products + t * p.x_step + (first + row) * p.x_row; }
  W* state(int64_t row) const { return io.state + (first + row) * p.hidden; }
  W* cell(int64_t row) const { return io.cell + (first + row) * p.hidden; }
  W* spare(int64_t row) const { return io.spare + (first + row) * p.hidden; }
  /// Null where nobody reads Y.
  W* y(int64_t row) const { return io.y ? io.y + p.y_offset + t * p.y_step + (first + row) * p.y_row : nullptr; }
  /// f(row) for every row; some are left out where the run is told to stop.
  template <class F>
  void for_each_row(F&& f) const {
    if (rows == 1) {
      f(0);  // is not divided, and the walk has asked
      return;
    }
    WorkMeter meter;
    for_blocks(meter, 0, rows, p.gates * p.hidden * (sizeof(W) == sizeof(double) ? 10 : 1),
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) f(row);
               });
  }
  /// The new state of a row is in place; Y gets its copy.
  void publish(int64_t row) const {
    if (W* target = y(row)) std::copy(state(row), state(row) + p.hidden, target);
  }
  void clip(W* x) const {
    if (p.clip == 0) return;
    const W limit = static_cast<W>(p.clip);
    for (int64_t i = 0; i < p.hidden; ++i) x[i] = x[i] > limit ? limit : x[i] < -limit ? -limit : x[i];
  }
  /// x = f(clip(x)).
  void activate(const RecurrentActivation& f, W* x) const {
    clip(x);
    f.apply(x, p.hidden);
  }
};

/// recurrent_product in float32 or bf16.
template <class T>
void packed_product(const RecurrentBlock<float>& block, const float* a, const float* b, const float* bias, float* out,
                    int64_t ld, int64_t n, bool accumulate) {
  kernels::GemmArgsOf<T> g;
  g.m = block.rows;
  g.n = n;
  g.k = block.p.hidden;
  g.a = a;
  g.lda = block.p.hidden;
  g.c = out;
  g.ldc = ld;
  g.bias = bias;
  g.bias_kind = bias ? kernels::BiasKind::kPerColumn : kernels::BiasKind::kNone;
  g.residual = accumulate ? out : nullptr;
  g.ldr = ld;
  kernels::use_packed_b(g, reinterpret_cast<const typename kernels::GemmArgsOf<T>::Packed*>(b));
  if (block.threads && block.threads->pool) {
    kernels::GemmOf<T>::parallel(g, block.threads->pool, block.threads->max_threads);
  } else {
    kernels::GemmOf<T>::one(g);
  }
}

/// out = a B' (+ bias) (+ out where `accumulate`) for the block's rows: n columns, `hidden` deep. B is packed where W
/// is float, else [n, hidden].
inline void recurrent_product(const RecurrentBlock<float>& block, const float* a, const float* b, const float* bias,
                              float* out, int64_t ld, int64_t n, bool accumulate) {
  if (block.p.bf16) return packed_product<BFloat16>(block, a, b, bias, out, ld, n, accumulate);
  packed_product<float>(block, a, b, bias, out, ld, n, accumulate);
}
inline void recurrent_product(const RecurrentBlock<double>& block, const double* a, const double* b, const double* bias,
                              double* out, int64_t ld, int64_t n, bool accumulate) {
  const int64_t k = block.p.hidden;
  WorkMeter meter;
  for_line_blocks(meter, block.rows, n, k, [&](int64_t row, int64_t first, int64_t last) {
    for (int64_t j = first; j < last; ++j) {
      double sum = bias ? bias[j] : 0;
      for (int64_t i = 0; i < k; ++i) sum += a[row * k + i] * b[j * k + i];
      out[row * ld + j] = accumulate ? out[row * ld + j] + sum : sum;
    }
  });
}

/// Where those of row_product stand, and its scratch; and how many operands a walk has in all.
inline constexpr size_t kLengthsOperand = 13, kByteOperands = 14, kByteScratch = 17, kWalkOperands = 18;

/// The gates of the block += state R, where R is bytes.
inline void byte_recurrent_product(const RecurrentBlock<float>& block, std::byte* const* io) {
  const RecurrentParams& p = block.p;
  row_product({p.bytes, io + kByteOperands, block.state(0), block.rows, p.hidden, block.gates(0), p.x_row,
               block.gates(0), p.x_row, io[kByteScratch] + block.first * p.bytes.room(1)},
              block.threads);
}

/// Throws Error(kInference) where a sequence length is outside [0, steps].
void check_lengths(const RecurrentParams& p, const int32_t* lengths);

/// Rows of a piece of the batch: a thread is worth waking for a few, and for about a million multiply-adds.
inline int64_t least_rows(const RecurrentParams& p) {
  constexpr double kWork = 1 << 20;
  const double row_work =
      multiplied(p.steps, p.gates, p.hidden, p.hidden);  // of a hostile file, more than 64 bits hold
  return row_work > kWork / 4 ? 4 : static_cast<int64_t>(kWork / std::max(1.0, row_work));
}

/// Walks one direction: cell(block) for every time step, first to last of the direction. Rows whose sequence has ended
/// (or, in reverse, not begun) keep their state, and their Y is 0.
template <class W, class Cell>
void walk(const RecurrentParams& p, std::byte* const* operands, const ExecContext& context, Cell cell) {
  const RecurrentIo<W> io(operands);
  if (io.lengths) check_lengths(p, io.lengths);
  // Of a time step: some eight multiply-adds a nanosecond, one in double.
  const int64_t row_products = p.gates * p.hidden * p.hidden;
  const int64_t row_nanos = 1 + (std::is_same_v<W, float> ? row_products / 8 : row_products);
  const auto run = [&](int64_t first, int64_t last) {
    const int64_t rows = last - first;
    const auto load = [&](const W* from, W* to) {
      for (int64_t row = first; row < last; ++row) {
        W* target = to + row * p.hidden;
        const W* source = from ? from + p.state_offset + row * p.state_row : nullptr;
        if (source) {
          std::copy(source, source + p.hidden, target);
        } else {
          std::fill(target, target + p.hidden, W(0));
        }
      }
    };
    const auto save = [&](const W* from, W* to) {
      for (int64_t row = first; to && row < last; ++row) {
        std::copy(from + row * p.hidden, from + (row + 1) * p.hidden, to + p.state_offset + row * p.state_row);
      }
    };
    load(io.h0, io.state);
    if (io.cell) load(io.c0, io.cell);
    WorkMeter meter;
    for (int64_t s = 0; s < p.steps && meter.go_on(rows * row_nanos); ++s) {
      const RecurrentBlock<W> block{
          p, io, first, rows, p.reverse ? p.steps - 1 - s : s, rows == p.batch ? &context : nullptr};
      cell(block);
      for (int64_t row = 0; io.lengths && io.y && row < rows; ++row) {
        if (!block.active(row)) std::fill(block.y(row), block.y(row) + p.hidden, W(0));
      }
    }
    save(io.state, io.y_h);
    if (io.cell) save(io.cell, io.y_c);
  };
  // One piece for each thread, as every piece reads all of R.
  for_ranges(context, p.batch, std::max(least_rows(p), p.batch / std::max(1, context.max_threads)), run);
}

/// The shape rule: inputs X, W, R, B, sequence_lens, initial_h (and, for LSTM, initial_c, P). Of weights that are
/// bytes, W and R are transposed, and behind P stand scale and zero point of W and of R; all six are constant.
void infer_recurrent(InferContext& c, CellKind kind, bool bytes = false);
/// `f32` and `f64` walk one direction of the cell on float and on double; in `bf16` it is float32, with products in
/// bf16.
void lower_recurrent(LowerContext& c, CellKind kind, StepFn f32, StepFn f64, bool bf16);
/// Of weights that are bytes; `step` multiplies with byte_recurrent_product.
void lower_byte_recurrent(LowerContext& c, CellKind kind, StepFn step);

}  // namespace inferkit
