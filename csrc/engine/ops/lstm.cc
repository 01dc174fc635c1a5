// LSTM. Gates stand in the order i, o, f, c.
#include "engine/compile/op_registry.h"
#include "engine/ops/common/recurrent.h"

namespace inferkit {
namespace {

/// x += w * v.
template <class W>
void add_product(W* x, const W* w, const W* v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += w[i] * v[i];
}

/// With any activations, peepholes, clipping and coupled gates.
template <class W>
void cell_row(const RecurrentBlock<W>& b, int64_t row) {
  const RecurrentParams& p = b.p;
  const int64_t n = p.hidden;
  W *input = b.gates(row), *output = input + n, *forget = output + n, *candidate = forget + n;
  W *cell = b.cell(row), *state = b.state(row);
  const W* peepholes = b.io.peepholes ? b.io.peepholes + p.p_offset : nullptr;
  if (peepholes) {
    add_product(input, peepholes, cell, n);
    add_product(forget, peepholes + 2 * n, cell, n);
  }
  b.activate(p.f, input);
  b.activate(p.g, candidate);
  if (p.coupled) {
    for (int64_t i = 0; i < n; ++i) forget[i] = 1 - input[i];
  } else {
    b.activate(p.f, forget);
  }
  for (int64_t i = 0; i < n; ++i) cell[i] = forget[i] * cell[i] + input[i] * candidate[i];
  if (peepholes) add_product(output, peepholes + n, cell, n);
  b.activate(p.f, output);
  std::copy(cell, cell + n, state);
  p.h.apply(state, n);
  for (int64_t i = 0; i < n; ++i) state[i] *= output[i];
  b.publish(row);
}

/// The cells of the block's rows; the gates hold both products.
template <class W>
void cells(const RecurrentBlock<W>& b) {
  b.for_each_row([&](int64_t row) {
    if (!b.active(row)) return;
    if constexpr (sizeof(W) == sizeof(float)) {
      if (b.p.plain) {
        return kernels::recurrent_kernels().lstm(b.gates(row), b.cell(row), b.state(row), b.y(row), b.p.hidden);
      }
    }
    cell_row(b, row);
  });
}

template <class W>
void run_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const RecurrentParams*>(params);
  walk<W>(p, io, context, [&p](const RecurrentBlock<W>& b) {
    const W* r = b.io.r;
    if constexpr (sizeof(W) == sizeof(double)) r += p.r_offset;
    recurrent_product(b, b.state(0), r, static_cast<const W*>(nullptr), b.gates(0), p.x_row, 4 * p.hidden, true);
    cells(b);
  });
}

void run_byte_step(const void* params, std::byte* const* io, const ExecContext& context) {
  walk<float>(*static_cast<const RecurrentParams*>(params), io, context, [io](const RecurrentBlock<float>& b) {
    byte_recurrent_product(b, io);
    cells(b);
  });
}

void infer_lstm(InferContext& c) { infer_recurrent(c, CellKind::kLstm); }
template <bool kInBf16>
void lower_lstm(LowerContext& c) {
  lower_recurrent(c, CellKind::kLstm, run_step<float>, run_step<double>, kInBf16);
}

void infer_byte_lstm(InferContext& c) { infer_recurrent(c, CellKind::kLstm, true); }
void lower_byte_lstm(LowerContext& c) { lower_byte_recurrent(c, CellKind::kLstm, run_byte_step); }

}  // namespace

void register_lstm(OpRegistry& r) {
  r.add({.name = "LSTM",
         .since = 7,
         .min_inputs = 3,
         .max_inputs = 8,
         .min_outputs = 0,
         .max_outputs = 3,
         .infer = infer_lstm,
         .mixed_axes = mixed_by_recurrence},
        {{.name = kOnlyLowering, .lower = lower_lstm<false>},
         {.name = "bf16", .lower = lower_lstm<true>, .precision = Precision::kBf16}});
  // Written for DynamicQuantizeLSTM.
  r.add({.domain = kInternal,
         .name = "ByteLSTM",
         .min_inputs = 11,  // the last, a zero point, may be left out
         .max_inputs = 12,
         .min_outputs = 0,
         .max_outputs = 3,
         .infer = infer_byte_lstm,
         .mixed_axes = mixed_by_recurrence},
        lower_byte_lstm);
}

}  // namespace inferkit
