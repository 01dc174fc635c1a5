// GRU. Gates stand in the order z, r, h. The reset gate applies to the state before the product with R's hidden rows,
// or, with linear_before_reset, to that product.
#include "engine/compile/op_registry.h"
#include "engine/ops/common/recurrent.h"

namespace inferkit {
namespace {

/// state = (1 - z) hidden + z state, with z and hidden still to be activated.
template <class W>
void update_row(const RecurrentBlock<W>& b, int64_t row) {
  W *z = b.gates(row), *hidden = z + 2 * b.p.hidden, *state = b.state(row);
  b.activate(b.p.f, z);
  b.activate(b.p.g, hidden);
  for (int64_t i = 0; i < b.p.hidden; ++i) state[i] = (1 - z[i]) * hidden[i] + z[i] * state[i];
  b.publish(row);
}

/// spare = f(r) state: what the hidden rows of R multiply.
template <class W>
void reset_row(const RecurrentBlock<W>& b, int64_t row) {
  W *r = b.gates(row) + b.p.hidden, *state = b.state(row), *out = b.spare(row);
  if constexpr (sizeof(W) == sizeof(float)) {
    if (b.p.plain) return kernels::recurrent_kernels().gru_reset(r, state, out, b.p.hidden);
  }
  b.activate(b.p.f, r);
  for (int64_t i = 0; i < b.p.hidden; ++i) out[i] = r[i] * state[i];
}

template <class W>
void step_reset_before(const RecurrentBlock<W>& b, const W* r_hidden) {
  const int64_t n = b.p.hidden;
  b.for_each_row([&](int64_t row) { reset_row(b, row); });
  recurrent_product(b, b.spare(0), r_hidden, static_cast<const W*>(nullptr), b.gates(0) + 2 * n, b.p.x_row, n, true);
  b.for_each_row([&](int64_t row) {
    if (!b.active(row)) return;
    if constexpr (sizeof(W) == sizeof(float)) {
      if (b.p.plain) {
        return kernels::recurrent_kernels().gru_update(b.gates(row), b.gates(row) + 2 * n, b.state(row), b.y(row), n);
      }
    }
    update_row(b, row);
  });
}

template <class W>
void step_reset_after(const RecurrentBlock<W>& b, const W* r_hidden) {
  const int64_t n = b.p.hidden;
  const W* bias = b.io.hidden_bias ? b.io.hidden_bias + 3 * n : nullptr;
  recurrent_product(b, b.state(0), r_hidden, bias, b.spare(0), n, n, false);
  b.for_each_row([&](int64_t row) {
    if (!b.active(row)) return;
    W *gates = b.gates(row), *recurrent = b.spare(row);
    if constexpr (sizeof(W) == sizeof(float)) {
      if (b.p.plain) {
        return kernels::recurrent_kernels().gru_reset_after(gates, recurrent, b.state(row), b.y(row), n);
      }
    }
    b.activate(b.p.f, gates + n);
    for (int64_t i = 0; i < n; ++i) gates[2 * n + i] += gates[n + i] * recurrent[i];
    update_row(b, row);
  });
}

template <class W>
void run_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const RecurrentParams*>(params);
  walk<W>(p, io, context, [&p](const RecurrentBlock<W>& b) {
    const W *r = b.io.r, *r_hidden = b.io.r_hidden;
    if constexpr (sizeof(W) == sizeof(double)) {
      r += p.r_offset;
      r_hidden += p.r_offset + 2 * p.hidden * p.hidden;
    }
    recurrent_product(b, b.state(0), r, static_cast<const W*>(nullptr), b.gates(0), p.x_row, 2 * p.hidden, true);
    p.reset_after ? step_reset_after(b, r_hidden) : step_reset_before(b, r_hidden);
  });
}

void infer_gru(InferContext& c) { infer_recurrent(c, CellKind::kGru); }
template <bool kInBf16>
void lower_gru(LowerContext& c) {
  lower_recurrent(c, CellKind::kGru, run_step<float>, run_step<double>, kInBf16);
}

}  // namespace

void register_gru(OpRegistry& r) {
  r.add({.name = "GRU",
         .since = 7,
         .min_inputs = 3,
         .max_inputs = 6,
         .min_outputs = 0,
         .max_outputs = 2,
         .infer = infer_gru,
         .mixed_axes = mixed_by_recurrence},
        {{.name = kOnlyLowering, .lower = lower_gru<false>},
         {.name = "bf16", .lower = lower_gru<true>, .precision = Precision::kBf16}});
}

}  // namespace inferkit
