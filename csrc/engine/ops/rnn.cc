// RNN: one gate, which is the new state.
#include "engine/compile/op_registry.h"
#include "engine/ops/common/recurrent.h"

namespace inferkit {
namespace {

template <class W>
void run_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const RecurrentParams*>(params);
  walk<W>(p, io, context, [&p](const RecurrentBlock<W>& b) {
    const W* r = b.io.r;
    if constexpr (sizeof(W) == sizeof(double)) r += p.r_offset;
    recurrent_product(b, b.state(0), r, static_cast<const W*>(nullptr), b.gates(0), p.x_row, p.hidden, true);
    b.for_each_row([&](int64_t row) {
      if (!b.active(row)) return;
      W* gate = b.gates(row);
      b.activate(p.f, gate);
      std::copy(gate, gate + p.hidden, b.state(row));
      b.publish(row);
    });
  });
}

void infer_rnn(InferContext& c) { infer_recurrent(c, CellKind::kRnn); }
template <bool kInBf16>
void lower_rnn(LowerContext& c) {
  lower_recurrent(c, CellKind::kRnn, run_step<float>, run_step<double>, kInBf16);
}

}  // namespace

void register_rnn(OpRegistry& r) {
  r.add({.name = "RNN",
         .since = 7,
         .min_inputs = 3,
         .max_inputs = 6,
         .min_outputs = 0,
         .max_outputs = 2,
         .infer = infer_rnn,
         .mixed_axes = mixed_by_recurrence},
        {{.name = kOnlyLowering, .lower = lower_rnn<false>},
         {.name = "bf16", .lower = lower_rnn<true>, .precision = Precision::kBf16}});
}

}  // namespace inferkit
