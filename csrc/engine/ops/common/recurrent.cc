#include "engine/ops/common/recurrent.h"

#include <array>

#include "engine/ops/common/convert.h"
#include "engine/ops/common/pack_blocks.h"
#include "engine/ops/common/packed_panels.h"
#include "engine/ops/dispatch.h"
#include "kernels/cpu/half/half.h"

namespace inferkit {
namespace {

enum Input : size_t { kX, kW, kR, kB, kLengths, kH0, kC0, kP, kWScale, kWZero, kRScale, kRZero };

struct RecurrentShape {
  CellKind kind;
  int64_t steps, batch, in, hidden, gates, directions;
  bool batch_first, reverse, coupled, reset_after;
  Shape y, state;
};

int64_t gates_of(CellKind kind) { return kind == CellKind::kLstm ? 4 : kind == CellKind::kGru ? 3 : 1; }

void require_shape(const NodeContext& c, size_t i, std::string_view name, const Shape& expected) {
  if (c.has_input(i) && c.input(i).shape != expected) {
    c.fail(cat(name, " has shape ", c.input(i).shape.str(), "; expected ", expected.str()));
  }
}

std::vector<std::string> default_activations(CellKind kind) {
  if (kind == CellKind::kLstm) return {"Sigmoid", "Tanh", "Tanh"};
  if (kind == CellKind::kGru) return {"Sigmoid", "Tanh"};
  return {"Tanh"};
}

RecurrentShape recurrent_shape(const NodeContext& c, CellKind kind, bool bytes = false) {
  RecurrentShape s{};
  s.kind = kind;
  const int64_t layout = c.version() >= 14 ? c.attr_int("layout", 0) : 0;
  if (layout != 0 && layout != 1) c.fail(cat("layout must be 0 or 1, not ", layout));
  s.batch_first = layout == 1;
  const std::string direction = c.attr_string("direction", "forward");
  if (direction != "forward" && direction != "reverse" && direction != "bidirectional") {
    c.fail("direction must be forward, reverse or bidirectional, not '" + direction + "'");
  }
  s.reverse = direction == "reverse";
  s.directions = direction == "bidirectional" ? 2 : 1;
  recurrent_activations(c, default_activations(kind), s.directions);
  const Shape &x = c.input(kX).shape, &w = c.input(kW).shape, &r = c.input(kR).shape;
  if (x.rank() != 3 || w.rank() != 3 || r.rank() != 3) {
    c.fail(cat("X, W and R must have 3 dimensions, not ", x.str(), ", ", w.str(), ", ", r.str()));
  }
  s.steps = x[s.batch_first ? 1 : 0];
  s.batch = x[s.batch_first ? 0 : 1];
  s.in = x[2];
  s.hidden = c.attr_int("hidden_size", r[bytes ? 1 : 2]);
  s.gates = gates_of(kind);
  constexpr int64_t kMostHidden = int64_t{1} << 24;
  if (s.hidden < 1 || s.hidden > kMostHidden) {
    c.fail(cat("hidden_size is ", s.hidden, "; expected 1 to ", kMostHidden));
  }
  s.coupled = kind == CellKind::kLstm && c.attr_int("input_forget", 0) != 0;
  s.reset_after = kind == CellKind::kGru && c.attr_int("linear_before_reset", 0) != 0;
  const int64_t rows = s.gates * s.hidden;
  s.state = s.batch_first ? Shape{s.batch, s.directions, s.hidden} : Shape{s.directions, s.batch, s.hidden};
  s.y =
      s.batch_first ? Shape{s.batch, s.steps, s.directions, s.hidden} : Shape{s.steps, s.directions, s.batch, s.hidden};
  const auto weights = [&](int64_t depth) {
    return bytes ? Shape{s.directions, depth, rows} : Shape{s.directions, rows, depth};
  };
  require_shape(c, kW, "W", weights(s.in));
  require_shape(c, kR, "R", weights(s.hidden));
  require_shape(c, kB, "B", {s.directions, 2 * rows});
  require_shape(c, kLengths, "sequence_lens", {s.batch});
  require_shape(c, kH0, "initial_h", s.state);
  require_shape(c, kC0, "initial_c", s.state);
  require_shape(c, kP, "P", {s.directions, 3 * s.hidden});
  return s;
}

// ---- Steps ----------------------------------------------------------------------------------------------------------

struct PackParams {
  int64_t offset, rows, depth;
};
template <class T>
void pack_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const PackParams*>(params);
  pack_in_blocks(reinterpret_cast<const float*>(io[1]) + p.offset, true, p.depth, p.rows,
                 reinterpret_cast<typename kernels::GemmArgsOf<T>::Packed*>(io[0]));
}

/// The biases of W and R as one, but for those of R that the reset gate multiplies: they follow behind.
struct BiasParams {
  int64_t offset, rows, apart;  // the last `apart` of `rows`
};
template <class W>
void join_biases(const BiasParams& p, const W* b, W* out) {
  b += p.offset;
  for (int64_t i = 0; i < p.rows; ++i) out[i] = i < p.rows - p.apart ? b[i] + b[p.rows + i] : b[i];
  std::copy(b + 2 * p.rows - p.apart, b + 2 * p.rows, out + p.rows);
}
template <class W>
void bias_step(const void* params, std::byte* const* io, const ExecContext&) {
  join_biases(*static_cast<const BiasParams*>(params), reinterpret_cast<const W*>(io[1]), reinterpret_cast<W*>(io[0]));
}

struct ProductParams {
  int64_t m, n, k, w_offset;
};
/// In float32 or bf16.
template <class T>
void product_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ProductParams*>(params);
  kernels::GemmArgsOf<T> g;
  g.m = p.m;
  g.n = g.ldc = p.n;
  g.k = g.lda = p.k;
  g.c = reinterpret_cast<float*>(io[0]);
  g.a = reinterpret_cast<const float*>(io[1]);
  g.bias = reinterpret_cast<const float*>(io[3]);
  g.bias_kind = g.bias ? kernels::BiasKind::kPerColumn : kernels::BiasKind::kNone;
  kernels::use_packed_b(g, reinterpret_cast<const typename kernels::GemmArgsOf<T>::Packed*>(io[2]));
  if (context.pool) {
    kernels::GemmOf<T>::parallel(g, context.pool, context.max_threads);
  } else {
    kernels::GemmOf<T>::one(g);
  }
}
void product_f64_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ProductParams*>(params);
  auto* out = reinterpret_cast<double*>(io[0]);
  const auto* x = reinterpret_cast<const double*>(io[1]);
  const auto* w = reinterpret_cast<const double*>(io[2]) + p.w_offset;
  const auto* bias = reinterpret_cast<const double*>(io[3]);
  WorkMeter meter;
  for_line_blocks(meter, p.m, p.n, std::max<int64_t>(1, p.k), [&](int64_t row, int64_t first, int64_t last) {
    for (int64_t j = first; j < last; ++j) {
      double sum = bias ? bias[j] : 0;
      for (int64_t i = 0; i < p.k; ++i) sum += x[row * p.k + i] * w[j * p.k + i];
      out[row * p.n + j] = sum;
    }
  });
}

/// Both directions of a walk.
struct BothParams {
  StepFn walk;
  std::array<RecurrentParams, 2> directions;
};

/// Each direction on a thread of its own.
void both_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const BothParams*>(params);
  // The walks look at them, too, but must not throw on threads that help.
  if (const std::byte* lengths = io[kLengthsOperand]) {
    check_lengths(p.directions[0], reinterpret_cast<const int32_t*>(lengths));
  }
  for_tasks(context, 2, 2, [&](int64_t d, int64_t) {
    p.walk(&p.directions[static_cast<size_t>(d)], io + static_cast<size_t>(d) * kWalkOperands, ExecContext{});
  });
}

// ---- Lowering -------------------------------------------------------------------------------------------------------

class RecurrentLowering {
 public:
  enum class Products : uint8_t { kPlain, kBf16, kBytes };

  RecurrentLowering(LowerContext& c, const RecurrentShape& s, Products products)
      : c_(c),
        s_(s),
        dtype_(c.input(kX).dtype),
        wide_(dtype_ == DType::kF64),
        bf16_(products == Products::kBf16),
        bytes_(products == Products::kBytes),
        element_(wide_ ? sizeof(double) : sizeof(float)) {}

  void run(StepFn f32, StepFn f64) {
    const int64_t rows = s_.gates * s_.hidden;
    const auto activations = recurrent_activations(c_, default_activations(s_.kind), s_.directions);
    const size_t each = activations.size() / static_cast<size_t>(s_.directions);
    const Ref x = work_input(kX), h0 = work_input(kH0), c0 = work_input(kC0), p_in = work_input(kP);
    const Ref w_in = bytes_ ? Ref{} : weights_input(kW), r_in = bytes_ ? Ref{} : weights_input(kR);
    const Ref b_in = weights_input(kB);
    const std::array<Ref, 3> out{work_output(0, s_.y), work_output(1, s_.state), work_output(2, s_.state)};
    // What one direction has computed in, the next one can have, unless they run at once.
    const bool at_once = runs_at_once();
    BothParams both{wide_ ? f64 : f32, {}};
    std::vector<Ref> operands_of_both;
    Ref products, state, spare, cell;
    const auto count = multiplied(s_.steps, s_.batch);
    const double per_nano = wide_ ? 2 : bf16_ || bytes_ ? 120 : 60;
    const StepFn product = wide_ ? product_f64_step : bf16_ ? product_step<BFloat16> : product_step<float>;
    const double walk_nanos = 2 * count * multiplied(rows, s_.hidden) / per_nano + count * static_cast<double>(rows);
    for (int64_t d = 0; d < s_.directions; ++d) {
      if (d == 0 || at_once) {
        products = scratch({s_.steps, s_.batch, rows});
        state = scratch({s_.batch, s_.hidden});
        spare = scratch({s_.batch, s_.hidden});
        if (s_.kind == CellKind::kLstm) cell = scratch({s_.batch, s_.hidden});
      }
      const Ref bias = biases(b_in, d);
      RecurrentParams p = params(d);
      RowOperands r_bytes;
      Ref room;
      if (bytes_) {
        RowWeights w{.matrix = d};
        const RowOperands w_bytes = row_weights(c_, kW, kWScale, kWZero, w);
        lower_row_product(c_, products, x, s_.steps * s_.batch, w, w_bytes, bias);
        p.bytes.matrix = d;
        r_bytes = row_weights(c_, kR, kRScale, kRZero, p.bytes);
        room = c_.scratch(room_for({s_.batch, p.bytes.room(1)}, 1));
      } else {
        c_.step(product, ProductParams{s_.steps * s_.batch, rows, s_.in, d * rows * s_.in},
                {products, x, packed(kW, w_in, d, 0, rows, s_.in), bias},
                2 * count * multiplied(rows, s_.in) / per_nano);
      }
      p.f = activations[static_cast<size_t>(d) * each];
      if (each > 1) p.g = activations[static_cast<size_t>(d) * each + 1];
      if (each > 2) p.h = activations[static_cast<size_t>(d) * each + 2];
      p.plain = usual(p.f, kernels::Unary::kSigmoid) && usual(p.g, kernels::Unary::kTanh) &&
                (each < 3 || usual(p.h, kernels::Unary::kTanh)) && p.clip == 0 && !s_.coupled && !exists(kP);
      // The rows of R that give the hidden gate of a GRU are a product of their own.
      const int64_t hidden_rows = s_.kind == CellKind::kGru ? s_.hidden : 0;
      const Ref r = bytes_ ? Ref{} : packed(kR, r_in, d, 0, rows - hidden_rows, s_.hidden);
      const Ref r_hidden = hidden_rows ? packed(kR, r_in, d, rows - hidden_rows, hidden_rows, s_.hidden) : Ref{};
      const Ref lengths = c_.has_input(kLengths) ? c_.in(kLengths) : Ref{};
      const std::array<Ref, kWalkOperands> operands{out[0],
                                                    out[1],
                                                    out[2],
                                                    products,
                                                    state,
                                                    cell,
                                                    spare,
                                                    r,
                                                    r_hidden,
                                                    s_.reset_after ? bias : Ref{},
                                                    h0,
                                                    c0,
                                                    p_in,
                                                    lengths,
                                                    r_bytes.panels,
                                                    r_bytes.scales,
                                                    r_bytes.zeros,
                                                    room};
      if (at_once) {
        both.directions[static_cast<size_t>(d)] = p;
        operands_of_both.insert(operands_of_both.end(), operands.begin(), operands.end());
      } else {
        c_.step(both.walk, p, std::span<const Ref>(operands), walk_nanos);
      }
    }
    if (at_once) c_.step(both_step, both, std::span<const Ref>(operands_of_both), 2 * walk_nanos);
    narrow(0, out[0], s_.y);
    narrow(1, out[1], s_.state);
    narrow(2, out[2], s_.state);
  }

 private:
  Ref scratch(std::initializer_list<int64_t> counts) { return c_.scratch(room_for(counts, element_)); }
  bool half() const { return dtype_ == DType::kF16 || dtype_ == DType::kBF16; }
  static bool usual(const RecurrentActivation& f, kernels::Unary op) {
    return f.op == op && f.pre == 1 && f.post == 1 && f.shift == 0;
  }
  bool exists(size_t i) const { return c_.has_input(i); }

  /// Whether the two directions are walked by two threads: where neither the batch is cut among threads nor the product
  /// of a time step, which two threads share no better than this, and more of them only if it is large. Each direction
  /// then has room of its own for its products.
  bool runs_at_once() const {
    if (s_.directions != 2 || c_.threads() < 2) return false;
    constexpr double kWorthAThread = 1 << 17, kWorthSharing = 1 << 20;  // multiply-adds
    constexpr size_t kMostRoom = size_t{64} << 20;
    const double each = multiplied(s_.batch, s_.gates, s_.hidden, s_.hidden);
    return s_.batch < 2 * least_rows(params(0)) && static_cast<double>(s_.steps) * each >= kWorthAThread &&
           (c_.threads() == 2 || each < kWorthSharing) &&
           room_for({s_.steps, s_.batch, s_.gates, s_.hidden}, element_) <= kMostRoom;
  }

  RecurrentParams params(int64_t d) const {
    const int64_t rows = s_.gates * s_.hidden;
    RecurrentParams p{};
    p.steps = s_.steps;
    p.batch = s_.batch;
    p.hidden = s_.hidden;
    p.gates = s_.gates;
    p.x_step = s_.batch_first ? rows : s_.batch * rows;
    p.x_row = s_.batch_first ? s_.steps * rows : rows;
    const int64_t line = s_.directions * s_.hidden;
    p.y_step = s_.batch_first ? line : s_.batch * line;
    p.y_row = s_.batch_first ? s_.steps * line : s_.hidden;
    p.state_row = s_.batch_first ? line : s_.hidden;
    p.y_offset = p.state_offset = s_.batch_first ? d * s_.hidden : d * s_.batch * s_.hidden;
    p.r_offset = d * rows * s_.hidden;
    p.p_offset = d * 3 * s_.hidden;
    p.reverse = s_.reverse || d == 1;
    p.coupled = s_.coupled;
    p.reset_after = s_.reset_after;
    p.bf16 = bf16_;
    p.clip = c_.has_attr("clip") ? c_.attr_float("clip", 0) : 0;
    return p;
  }

  /// An input as float (or double); invalid where it is left out.
  Ref work_input(size_t i) {
    if (!exists(i)) return {};
    return converted(c_, c_.in(i), dtype_, compute_type(dtype_), c_.input(i).shape.elements());
  }
  /// As work_input; what is constant and not read as it is comes out of the cache, so it is not widened in the run.
  Ref weights_input(size_t i) {
    if (!exists(i) || (!wide_ && c_.input(i).constant)) return {};
    return work_input(i);
  }
  std::vector<float> constant_as_float(size_t i) const {
    const Tensor& t = *c_.input(i).constant;
    std::vector<float> out(static_cast<size_t>(t.shape.elements()));
    const auto n = static_cast<int64_t>(out.size());
    if (dtype_ == DType::kF16) {
      kernels::widen(t.as<Half>(), out.data(), n);
    } else if (dtype_ == DType::kBF16) {
      kernels::widen(t.as<BFloat16>(), out.data(), n);
    } else {
      std::copy(t.as<float>(), t.as<float>() + n, out.begin());
    }
    return out;
  }

  /// Rows [first, first + rows) of direction d of W or R. Doubles stay where they are: the steps add the offset of the
  /// direction and, for a second part, of the rows before it.
  Ref packed(size_t i, Ref source, int64_t d, int64_t first, int64_t rows, int64_t depth) {
    if (wide_) return source;
    const int64_t offset = (d * s_.gates * s_.hidden + first) * depth;
    // A pair of bf16 is as large as a float.
    const auto elements = static_cast<int64_t>(bf16_ ? kernels::packed_b_bf16_elements(depth, rows)
                                                     : kernels::packed_b_elements(depth, rows));
    if (!c_.input(i).constant) {
      const Ref out = scratch({elements});
      c_.step(bf16_ ? pack_step<BFloat16> : pack_step<float>, PackParams{offset, rows, depth}, {out, source},
              static_cast<double>(elements) / 4);
      return out;
    }
    const Panels panels{depth, rows, /*transposed=*/true, 1, offset};
    const Tensor& constant = *c_.input(i).constant;
    return bf16_ ? packed_panels_bf16(c_, constant, panels) : packed_panels(c_, constant, panels);
  }

  Ref biases(Ref source, int64_t d) {
    if (!exists(kB)) return {};
    const int64_t rows = s_.gates * s_.hidden;
    const BiasParams p{2 * d * rows, rows, s_.reset_after ? s_.hidden : 0};
    if (wide_ || !c_.input(kB).constant) {
      const Ref out = scratch({rows + p.apart});
      c_.step(wide_ ? bias_step<double> : bias_step<float>, p, {out, source}, static_cast<double>(rows));
      return out;
    }
    const Packing packing{cat("recurrent-bias-", d, "-", p.apart), DType::kF32, rows + p.apart, {}};
    return c_.packed({c_.input(kB).constant}, packing, [&](void* to) {
      const std::vector<float> values = constant_as_float(kB);
      join_biases(p, values.data(), static_cast<float*>(to));
    });
  }

  Ref work_output(size_t i, const Shape& shape) {
    if (!c_.has_output(i) || !c_.out(i).valid()) return {};
    return half() ? scratch({shape.elements()}) : c_.out(i);
  }
  void narrow(size_t i, Ref from, const Shape& shape) {
    if (!half() || !from.valid()) return;
    lower_convert(c_, from, compute_type(dtype_), c_.out(i), dtype_, shape.elements());
  }

  LowerContext& c_;
  const RecurrentShape& s_;
  const DType dtype_;
  const bool wide_;   // runs in double
  const bool bf16_;   // products of floats are in bf16
  const bool bytes_;  // weights are bytes
  const size_t element_;
};

}  // namespace

void check_lengths(const RecurrentParams& p, const int32_t* lengths) {
  for (int64_t i = 0; i < p.batch; ++i) {
    if (lengths[i] < 0 || lengths[i] > p.steps) {
      throw Error(ErrorCode::kInference, cat("sequence_lens[", i, "] is ", lengths[i], "; expected 0 to ", p.steps,
                                             ", the number of time steps"));
    }
  }
}

void infer_recurrent(InferContext& c, CellKind kind, bool bytes) {
  require_type(c, kX, bytes ? types(DType::kF32) : kFloatTypes);
  for (const size_t i : {kW, kR, kB, kH0, kC0, kP}) {
    if (c.has_input(i) && !(bytes && (i == kW || i == kR))) require_same_type(c, kX, i);
  }
  if (c.has_input(kLengths)) require_type(c, kLengths, types(DType::kI32));
  const RecurrentShape s = recurrent_shape(c, kind, bytes);
  recurrent_activations(c, default_activations(kind), s.directions);
  const DType dtype = c.input(kX).dtype;
  if (c.has_output(0)) c.set_output(0, dtype, s.y);
  if (c.has_output(1)) c.set_output(1, dtype, s.state);
  if (c.has_output(2)) c.set_output(2, dtype, s.state);
}

void lower_recurrent(LowerContext& c, CellKind kind, StepFn f32, StepFn f64, bool bf16) {
  const RecurrentShape s = recurrent_shape(c, kind);
  using Products = RecurrentLowering::Products;
  RecurrentLowering(c, s, bf16 ? Products::kBf16 : Products::kPlain).run(f32, f64);
}

void lower_byte_recurrent(LowerContext& c, CellKind kind, StepFn step) {
  const RecurrentShape s = recurrent_shape(c, kind, true);
  RecurrentLowering(c, s, RecurrentLowering::Products::kBytes).run(step, nullptr);
}

}  // namespace inferkit
