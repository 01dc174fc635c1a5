// Einsum: the operands are contracted from left to right. Each pair becomes a batch of matrix products over permuted
// operands; repeated labels are strides, and dimensions of one operand alone are summed first. Half types are widened
// before the first of these and rounded after the last.
#include <algorithm>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/common/einsum_equation.h"
#include "engine/ops/common/pack_slots.h"
#include "engine/ops/common/packed_panels.h"
#include "engine/ops/common/strided_copy.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/wrap.h"
#include "kernels/cpu/gemm64/gemm64.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

// ---- Steps ----------------------------------------------------------------------------------------------------------

struct SumParams {
  LoopNest<2> kept;  // of the input and of the output
  LoopNest<1> summed;
  int64_t chunk;  // of what is summed
};
template <class T>
void sum_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const SumParams*>(params);
  auto* out = reinterpret_cast<T*>(io[0]);
  const auto* in = reinterpret_cast<const T*>(io[1]);
  WorkMeter meter;
  for_each_piece(p.kept, [&](const std::array<int64_t, 2>& at, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const T* base = in + at[0] + i * p.kept.inner_stride(0);
      Compute<T> sum = 0, part = 0;
      int64_t left = p.chunk;
      for_each_run(p.summed, [&](const std::array<int64_t, 1>& offset, int64_t) {
        for_blocks(meter, 0, p.summed.inner(), 1, [&](int64_t first, int64_t last) {
          for (int64_t j = first; j < last; ++j) {
            part = wrap_add<Compute<T>>(part, load(base[offset[0] + j * p.summed.inner_stride(0)]));
            if (--left > 0) continue;
            sum = wrap_add<Compute<T>>(sum, part);
            part = 0;
            left = p.chunk;
          }
        });
      });
      out[at[1] + i * p.kept.inner_stride(1)] = store<T>(wrap_add<Compute<T>>(sum, part));
    }
  });
}

enum class RightSide : uint8_t { kPacked, kRowMajor, kTransposed };

struct ProductParams {
  int64_t batch, m, n, k;
  RightSide right;
  int slots = 1;  // where b is packed in the run
};

/// io: the result [batch, m, n], a [batch, m, k], b, room for b packed `slots` times. T: float or double.
template <class T>
void panels_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ProductParams*>(params);
  const bool packs = p.right != RightSide::kPacked;
  const auto room = static_cast<int64_t>(kernels::GemmOf<T>::packed_elements(p.k, p.n));
  const auto operands = [&](int64_t i, int64_t slot) {
    kernels::GemmArgsOf<T> g;
    g.m = p.m;
    g.n = g.ldc = p.n;
    g.k = g.lda = p.k;
    // n may hold the batch, and k a length that is padded: bits must not depend on either.
    g.k_chunk = kernels::GemmOf<T>::chunk(packs ? kernels::computed_chunk(p.k) : kernels::sum_chunk(p.k));
    g.a = reinterpret_cast<const T*>(io[1]) + i * p.m * p.k;
    g.c = reinterpret_cast<T*>(io[0]) + i * p.m * p.n;
    const auto* b = reinterpret_cast<const T*>(io[2]);
    if (packs) {
      const T* from = b + i * p.k * p.n;
      T* to = reinterpret_cast<T*>(io[3]) + slot * room;
      p.right == RightSide::kRowMajor ? kernels::pack_b(from, p.n, p.k, p.n, to)
                                      : kernels::pack_b_transposed(from, p.k, p.k, p.n, to);
      b = to;
    }
    kernels::use_packed_b(g, b);
    return g;
  };
  const kernels::GemmBatch batch{p.batch, p.m, p.n, p.k, packs ? p.slots : kernels::GemmBatch::kAnySlots, packs};
  kernels::GemmOf<T>::batch(batch, operands, context.pool, context.max_threads);
}

/// The same for the other types, k ascending; b is row-major, io[3] holds a row of sums.
template <class T>
void product_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ProductParams*>(params);
  auto* out = reinterpret_cast<T*>(io[0]);
  const auto* a = reinterpret_cast<const T*>(io[1]);
  auto* sums = reinterpret_cast<Compute<T>*>(io[3]);
  WorkMeter meter;
  const int64_t between = p.n < 16384 ? 63 : 0;  // lines that two looks are apart
  for (int64_t row = 0; row < p.batch * p.m; ++row) {
    const T* b = reinterpret_cast<const T*>(io[2]) + row / p.m * p.k * p.n;
    std::fill(sums, sums + p.n, Compute<T>(0));
    for (int64_t k = 0; k < p.k; ++k) {
      if ((k & between) == 0 && !meter.go_on((between + 1) * p.n)) return;
      const Compute<T> x = load(a[row * p.k + k]);
      for (int64_t j = 0; j < p.n; ++j) sums[j] = wrap_add(sums[j], wrap_mul<Compute<T>>(x, load(b[k * p.n + j])));
    }
    for (int64_t j = 0; j < p.n; ++j) out[row * p.n + j] = store<T>(sums[j]);
  }
}

// ---- Lowering -------------------------------------------------------------------------------------------------------

/// An operand, or what came of some: a strided view with one label per dimension, none twice.
struct Term {
  Ref memory;
  Labels labels;
  std::vector<int64_t> strides;
  const Tensor* constant = nullptr;
};

bool holds(const Labels& labels, Label l) { return std::find(labels.begin(), labels.end(), l) != labels.end(); }
Labels operator+(Labels a, const Labels& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class Contraction {
 public:
  explicit Contraction(LowerContext& c)
      : c_(c),
        e_(einsum_equation(c)),
        dtype_(computes() ? compute_type(c.input(0).dtype) : c.input(0).dtype),
        out_(begin_output(c, 0, dtype_)) {}

  void run() {
    contract();
    end_output(c_, 0, out_, dtype_);
  }

 private:
  /// Whether it does more than to take elements in another order.
  bool computes() const {
    if (e_.terms.size() > 1) return true;
    return std::any_of(e_.terms[0].begin(), e_.terms[0].end(), [&](Label l) { return !holds(e_.out, l); });
  }

  void contract() {
    Term left = operand(0);
    for (size_t i = 1; i < e_.terms.size(); ++i) {
      Labels wanted = e_.out;
      for (size_t j = i + 1; j < e_.terms.size(); ++j) wanted = wanted + e_.terms[j];
      left = multiply(left, operand(i), wanted, i + 1 == e_.terms.size());
    }
    left = sum(left, e_.out, true);
    if (left.labels == e_.out && left.memory.id == out_.id) return;
    if (is_identity(shape_of(e_.out), strides_of(left, e_.out)) && left.memory.id == c_.in(0).id) {
      return c_.alias(0, 0);
    }
    lower_strided_copy(c_, left.memory, out_, dtype_, shape_of(e_.out), strides_of(left, e_.out));
  }

  Shape shape_of(const Labels& labels) const {
    if (labels.size() > Shape::kMaxRank)
      c_.unsupported(cat("an intermediate result of ", counted(labels.size(), "dimension")));
    Shape out;
    for (Label l : labels) out.push_back(e_.dims.at(l));
    if (!out.checked_elements()) c_.unsupported(cat("an intermediate result of shape ", out.str()));
    return out;
  }
  int64_t size_of(const Labels& labels) const {
    int64_t n = 1;
    for (Label l : labels) n *= e_.dims.at(l);
    return n;
  }
  Ref scratch(int64_t elements) { return c_.scratch(static_cast<size_t>(elements) * dtype_size(dtype_)); }

  /// Repeated labels become one dimension along the diagonal. A dimension of 1 that broadcasts is left out.
  Term operand(size_t i) {
    const Shape& shape = c_.input(i).shape;
    const auto strides = shape.strides();
    Term t{converted(c_, c_.in(i), c_.input(i).dtype, dtype_, shape.elements()), {}, {}, nullptr};
    if (c_.input(i).dtype == dtype_) t.constant = c_.input(i).constant;
    for (size_t d = 0; d < shape.rank(); ++d) {
      const Label l = e_.terms[i][d];
      if (shape[d] != e_.dims.at(l)) continue;
      const auto at = std::find(t.labels.begin(), t.labels.end(), l);
      if (at != t.labels.end()) {
        t.strides[static_cast<size_t>(at - t.labels.begin())] += strides[d];
      } else {
        t.labels.push_back(l);
        t.strides.push_back(strides[d]);
      }
    }
    return t;
  }

  /// How `t` is read in the order `labels`; 0 for labels that it has not.
  Strides strides_of(const Term& t, const Labels& labels) const {
    Strides out{};
    for (size_t i = 0; i < labels.size(); ++i) {
      const auto at = std::find(t.labels.begin(), t.labels.end(), labels[i]);
      if (at != t.labels.end()) out[i] = t.strides[static_cast<size_t>(at - t.labels.begin())];
    }
    return out;
  }
  bool lies_as(const Term& t, const Labels& labels) const {
    return is_identity(shape_of(labels), strides_of(t, labels));
  }
  Term dense(Ref memory, const Labels& labels) const {
    const auto strides = shape_of(labels).strides();
    return {memory, labels, {strides.begin(), strides.begin() + static_cast<std::ptrdiff_t>(labels.size())}};
  }
  Ref in_order(const Term& t, const Labels& labels) {
    const Shape shape = shape_of(labels);
    const Strides strides = strides_of(t, labels);
    if (is_identity(shape, strides)) return t.memory;
    const Ref out = scratch(shape.elements());
    lower_strided_copy(c_, t.memory, out, dtype_, shape, strides);
    return out;
  }

  /// The step for the operands' type. Integers wrap, so that sums and products of signed ones have the bits of
  /// unsigned.
  template <class F>
  StepFn step_of(F&& step) const {
    return dispatch<kNumberTypes & ~kSignedTypes>(signless(dtype_), step);
  }

  /// Sums over the labels that nobody wants; `last` where nothing follows but the output.
  Term sum(const Term& t, const Labels& wanted, bool last) {
    Labels kept, gone;
    for (Label l : t.labels) (holds(wanted, l) ? kept : gone).push_back(l);
    if (gone.empty()) return t;
    const Shape shape = shape_of(kept);
    const Ref out = last && kept == e_.out ? out_ : scratch(shape.elements());
    const SumParams p{make_nest<2>(shape, {strides_of(t, kept), shape.strides()}),
                      make_nest<1>(shape_of(gone), {strides_of(t, gone)}),
                      kernels::computed_chunk(shape_of(gone).elements())};
    c_.step(step_of([]<class T>() -> StepFn { return sum_step<T>; }), p, {out, t.memory},
            static_cast<double>(size_of(t.labels)));
    return dense(out, kept);
  }

  Term multiply(Term a, Term b, const Labels& wanted, bool last) {
    a = sum(a, wanted + b.labels, false);
    b = sum(b, wanted + a.labels, false);
    Labels batch, rows, columns, inner;
    for (Label l : a.labels) (!holds(b.labels, l) ? rows : holds(wanted, l) ? batch : inner).push_back(l);
    for (Label l : b.labels) {
      if (!holds(a.labels, l)) columns.push_back(l);
    }
    const Labels result = batch + rows + columns;
    const Ref out = last && result == e_.out ? out_ : scratch(shape_of(result).elements());
    const Ref left = in_order(a, batch + rows + inner);
    ProductParams p{size_of(batch), size_of(rows), size_of(columns), size_of(inner), RightSide::kRowMajor};
    const double flops = 2.0 * multiplied(p.batch, p.m, p.n, p.k);
    // Which of the two runs is decided by the labels, not by sizes: a batch of one must have the bits of a larger one.
    const bool is_double = dtype_ == DType::kF64;
    if ((dtype_ != DType::kF32 && !is_double) || inner.empty()) {
      const Ref right = in_order(b, batch + inner + columns);
      const StepFn fn = step_of([]<class T>() -> StepFn { return product_step<T>; });
      c_.step(fn, p, {out, left, right, c_.scratch(static_cast<size_t>(p.n) * sizeof(double))}, flops);
      return dense(out, result);
    }
    const StepFn fn = is_double ? StepFn{panels_step<double>} : StepFn{panels_step<float>};
    const double each_nano = is_double ? 30 : 60;  // operations
    if (!lies_as(b, batch + inner + columns) && lies_as(b, batch + columns + inner)) p.right = RightSide::kTransposed;
    const Ref right = p.right == RightSide::kTransposed ? b.memory : in_order(b, batch + inner + columns);
    if (b.constant && right.id == b.memory.id && batch.empty()) {
      const Ref packed = packed_panels(c_, *b.constant, {p.k, p.n, p.right == RightSide::kTransposed});
      p.right = RightSide::kPacked;
      c_.step(fn, p, {out, left, packed, Ref{}}, flops / each_nano);
    } else {
      const double nanos = flops / each_nano + multiplied(p.batch, p.n, p.k) / 4;
      const size_t each = is_double ? kernels::GemmOf<double>::packed_elements(p.k, p.n) * sizeof(double)
                                    : kernels::GemmOf<float>::packed_elements(p.k, p.n) * sizeof(float);
      p.slots = pack_slots(c_.threads(), p.batch, nanos, each);
      const Ref room = c_.scratch(each * static_cast<size_t>(p.slots));
      c_.step(fn, p, {out, left, right, room}, nanos);
    }
    return dense(out, result);
  }

  LowerContext& c_;
  const EinsumEquation e_;
  const DType dtype_;  // what it computes in
  const Ref out_;
};

void infer_einsum(InferContext& c) {
  require_type(c, 0, kNumberTypes);
  for (size_t i = 1; i < c.input_count(); ++i) require_same_type(c, 0, i);
  const EinsumEquation e = einsum_equation(c);
  Shape out;
  for (Label l : e.out) out.push_back(e.dims.at(l));
  c.set_output(0, c.input(0).dtype, out);
}

/// What is summed over.
Axes mixed_by_einsum(const NodeContext& c, size_t i) {
  const EinsumEquation e = einsum_equation(c);
  Axes out = 0;
  for (size_t axis = 0; axis < e.terms[i].size(); ++axis) {
    const bool stays = std::find(e.out.begin(), e.out.end(), e.terms[i][axis]) != e.out.end();
    if (!stays) out = static_cast<Axes>(out | one_axis(static_cast<int64_t>(axis)));
  }
  return out;
}

void lower_einsum(LowerContext& c) { Contraction(c).run(); }

}  // namespace

void register_einsum(OpRegistry& r) {
  r.add({.name = "Einsum",
         .since = 12,
         .min_inputs = 1,
         .max_outputs = 1,
         .infer = infer_einsum,
         .mixed_axes = mixed_by_einsum},
        lower_einsum);
}

}  // namespace inferkit
