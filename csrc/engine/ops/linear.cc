// Matrix products: MatMul, Gemm, Linear, into which our passes turn both where the right side is constant, and
// ScaledMatMul, which is alpha times MatMul.
#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "engine/ops/activation_attr.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/common/pack_blocks.h"
#include "engine/ops/common/pack_slots.h"
#include "engine/ops/common/packed_panels.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/saturate.h"
#include "engine/ops/wrap.h"
#include "kernels/cpu/gemm64/gemm64.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

using kernels::BiasKind;
using kernels::GemmArgs;
using kernels::GemmArgsOf;
using kernels::GemmOf;

template <class T>
double products_per_nano() {
  if constexpr (std::is_same_v<T, BFloat16>) return kernels::gemm_bf16_kernels().products_per_nano;
  return 120.0 / sizeof(T);
}

template <class T>
double gemm_work(double batch, const GemmArgsOf<T>& g) {
  const double products = batch * static_cast<double>(g.m) * static_cast<double>(g.n) * static_cast<double>(g.k);
  return products / products_per_nano<T>() + static_cast<double>(g.k) * static_cast<double>(g.n) * sizeof(T) / 30;
}

/// Does a node of this type sum in the chunks of the rule?
bool follows_the_rule(const NodeContext& c) {
  return c.input(0).dtype == DType::kF32 || c.input(0).dtype == DType::kF64;
}

/// f<T>() with the type of the node, which is float32 or float64.
template <class F>
auto float_or_double(const NodeContext& c, F&& f) {
  return c.input(0).dtype == DType::kF64 ? f.template operator()<double>() : f.template operator()<float>();
}

template <class T>
struct LinearParams {
  GemmArgsOf<T> gemm;  // its pointers are filled in by the step
};

/// What a product in T reads and writes, and what it holds packed.
template <class T>
using Element = typename GemmArgsOf<T>::Element;
template <class T>
using Packed = typename GemmArgsOf<T>::Packed;

template <class T>
Ref panels_of(LowerContext& c, const Tensor& constant, const Panels& panels) {
  return std::is_same_v<T, BFloat16> ? packed_panels_bf16(c, constant, panels) : packed_panels(c, constant, panels);
}

template <class T>
void linear_step(const void* params, std::byte* const* io, const ExecContext& context) {
  GemmArgsOf<T> g = static_cast<const LinearParams<T>*>(params)->gemm;
  g.c = reinterpret_cast<Element<T>*>(io[0]);
  g.a = reinterpret_cast<const Element<T>*>(io[1]);
  g.b = reinterpret_cast<const Packed<T>*>(io[2]);
  g.bias = reinterpret_cast<const Element<T>*>(io[3]);
  g.residual = reinterpret_cast<const Element<T>*>(io[4]);
  if (context.pool) {
    GemmOf<T>::parallel(g, context.pool, context.max_threads);
  } else {
    GemmOf<T>::one(g);
  }
}

// ---- Linear: X [..., K] by a constant W [K, N] (or [N, K]) ----

void infer_linear(InferContext& c) {
  const TensorFacts &x = c.input(0), &w = c.input(1);
  const bool transposed = c.attr_int("transB", 0) != 0;
  if (x.dtype != DType::kF32) c.wrong(cat("expected a float32 input, got ", dtype_name(x.dtype)));
  if (x.shape.rank() < 1 || x.shape.back() != w.shape[transposed ? 1 : 0]) {
    c.fail(cat("cannot multiply ", x.shape.str(), " by ", w.shape.str(), transposed ? " transposed" : ""));
  }
  const int64_t rank = c.attr_int("rank", 0);  // 0: any
  if (rank != 0 && x.shape.rank() != static_cast<size_t>(rank)) c.fail(cat("expected a matrix, got ", x.shape.str()));
  Shape out = x.shape;
  out[out.rank() - 1] = w.shape[transposed ? 0 : 1];
  c.set_output(0, DType::kF32, out);
}

template <class T>
void lower_linear(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const bool transposed = c.attr_int("transB", 0) != 0;
  LinearParams<T> p;
  p.gemm.k = x.shape.back();
  p.gemm.n = c.output(0).shape.back();
  p.gemm.m = x.shape.elements(0, x.shape.rank() - 1);
  p.gemm.lda = p.gemm.k;
  p.gemm.ldc = p.gemm.n;
  const FusedActivation act = fused_activation(c);
  p.gemm.act = act.op;
  p.gemm.act_alpha = act.alpha;
  p.gemm.act_beta = act.beta;
  const Ref w = panels_of<T>(c, c.known_value(1), {p.gemm.k, p.gemm.n, transposed});
  kernels::use_packed_b(p.gemm, nullptr);
  p.gemm.bias_kind = c.has_input(2) ? BiasKind::kPerColumn : BiasKind::kNone;
  c.step(linear_step<T>, p, {c.out(0), c.in(0), w, c.in(2), Ref{}}, gemm_work(1, p.gemm));
}

// ---- MatMul: batches of matrices, broadcast as numpy does ----

struct Product {
  Shape batch;  // of the output
  int64_t m, n, k;
  Shape a, b;  // with at least two dimensions
  Shape out;
};

Product matmul_shapes(const NodeContext& c) {
  Product p;
  p.a = c.input(0).shape;
  p.b = c.input(1).shape;
  if (p.a.rank() == 0 || p.b.rank() == 0) c.fail("a scalar cannot be multiplied by MatMul");
  const bool vector_a = p.a.rank() == 1, vector_b = p.b.rank() == 1;
  if (vector_a) p.a.insert(0, 1);
  if (vector_b) p.b.push_back(1);
  const size_t ra = p.a.rank(), rb = p.b.rank();
  p.m = p.a[ra - 2];
  p.k = p.a[ra - 1];
  p.n = p.b[rb - 1];
  const auto batch = broadcast(Shape(p.a.dims().first(ra - 2)), Shape(p.b.dims().first(rb - 2)));
  if (p.b[rb - 2] != p.k || !batch) {
    c.fail(cat("cannot multiply ", c.input(0).shape.str(), " by ", c.input(1).shape.str()));
  }
  p.batch = *batch;
  p.out = *batch;
  if (!vector_a) p.out.push_back(p.m);
  if (!vector_b) p.out.push_back(p.n);
  return p;
}

constexpr TypeSet kMatMulTypes = kFloatTypes | types(DType::kI32, DType::kI64, DType::kU32, DType::kU64);

void infer_matmul(InferContext& c) {
  require_same_type(c, 0, 1);
  require_type(c, 0, kMatMulTypes);
  c.set_output(0, c.input(0).dtype, matmul_shapes(c).out);
}

template <class T>
struct MatMulParams {
  GemmArgsOf<T> gemm;
  LoopNest<2> batch;  // over a and b, in elements
  bool pack = false;  // b is packed in the run, into io[3]: room for `slots` of them
  int slots = kernels::GemmBatch::kAnySlots;
};

/// Where number i of the batch begins in a and b.
std::array<int64_t, 2> offsets_at(const LoopNest<2>& nest, int64_t i) {
  std::array<int64_t, 2> offsets{};
  for (auto d = static_cast<size_t>(nest.rank); d-- > 0; i /= nest.dims[d]) {
    for (size_t n = 0; n < 2; ++n) offsets[n] += i % nest.dims[d] * nest.strides[n][d];
  }
  return offsets;
}

template <class T>
void matmul_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const MatMulParams<T>*>(params);
  const auto room = static_cast<int64_t>(GemmOf<T>::packed_elements(p.gemm.k, p.gemm.n));
  const auto operands = [&](int64_t i, int64_t slot) {
    const auto [a, b] = offsets_at(p.batch, i);
    GemmArgsOf<T> g = p.gemm;
    g.a = reinterpret_cast<const Element<T>*>(io[1]) + a;
    g.c = reinterpret_cast<Element<T>*>(io[0]) + i * g.m * g.n;
    if (p.pack) {
      auto* packed = reinterpret_cast<Packed<T>*>(io[3]) + slot * room;
      kernels::pack_b(reinterpret_cast<const Element<T>*>(io[2]) + b, g.n, g.k, g.n, packed);
      g.b = packed;
    } else {
      g.b = reinterpret_cast<const Packed<T>*>(io[2]) + b;
    }
    return g;
  };
  const kernels::GemmBatch batch{p.batch.elements(), p.gemm.m, p.gemm.n, p.gemm.k, p.slots, p.pack};
  GemmOf<T>::batch(batch, operands, context.pool, context.max_threads);
}

struct GenericParams {
  int64_t m, n, k;
  int64_t a_row, a_col, b_row, b_col;  // strides in elements
  LoopNest<2> batch;
};

/// Row by row, k ascending; halves accumulate in float. io[3] holds one row of accumulators. The result is R: T, or
/// Compute<T> where more is to come before it is rounded.
template <class T, class R = T>
void matmul_generic_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const GenericParams*>(params);
  auto* out = reinterpret_cast<R*>(io[0]);
  const auto* a = reinterpret_cast<const T*>(io[1]);
  const auto* b = reinterpret_cast<const T*>(io[2]);
  auto* acc = reinterpret_cast<Compute<T>*>(io[3]);
  const int64_t inner = p.batch.inner();
  WorkMeter meter;
  const int64_t between = p.n < 16384 ? 63 : 0;  // lines that two looks are apart
  for_each_run(p.batch, [&](const std::array<int64_t, 2>& offsets, int64_t run) {
    for (int64_t i = 0; i < inner; ++i) {
      const T* ma = a + offsets[0] + i * p.batch.inner_stride(0);
      const T* mb = b + offsets[1] + i * p.batch.inner_stride(1);
      R* mc = out + (run * inner + i) * p.m * p.n;
      for (int64_t row = 0; row < p.m; ++row) {
        std::fill(acc, acc + p.n, Compute<T>(0));
        for (int64_t k = 0; k < p.k; ++k) {
          if ((k & between) == 0 && !meter.go_on((between + 1) * p.n)) return;
          const Compute<T> x = load(ma[row * p.a_row + k * p.a_col]);
          const T* line = mb + k * p.b_row;
          if (p.b_col == 1) {
            for (int64_t col = 0; col < p.n; ++col)
              acc[col] = wrap_add(acc[col], wrap_mul<Compute<T>>(x, load(line[col])));
          } else {
            for (int64_t col = 0; col < p.n; ++col)
              acc[col] = wrap_add(acc[col], wrap_mul<Compute<T>>(x, load(line[col * p.b_col])));
          }
        }
        for (int64_t col = 0; col < p.n; ++col) mc[row * p.n + col] = store<R>(acc[col]);
      }
    }
  });
}

/// Integers wrap, so that products of signed ones have the bits of unsigned.
StepFn generic_step(DType dtype, bool widened = false) {
  return dispatch<kMatMulTypes & ~kSignedTypes>(signless(dtype), [&]<class T>() -> StepFn {
    return widened ? matmul_generic_step<T, Compute<T>> : matmul_generic_step<T>;
  });
}

/// The nest over the batch dimensions, with the matrices' strides.
LoopNest<2> batch_nest(const Product& p) {
  auto strides_of = [&](const Shape& shape) {
    const Shape lead(shape.dims().first(shape.rank() - 2));
    Strides s = broadcast_strides(lead, p.batch);
    for (size_t i = 0; i < p.batch.rank(); ++i) s[i] *= shape.elements(shape.rank() - 2, shape.rank());
    return s;
  };
  return make_nest<2>(p.batch, {strides_of(p.a), strides_of(p.b)});
}

/// The columns of a B of the file are the layer's. Those of one that a run computes, or a plan from the shapes that it
/// is for, may hold the batch, and its rows a length that is padded: bits must not depend on either.
int64_t chunk_of(const NodeContext& c, int64_t k, int64_t n) {
  return c.input(1).is_of_file() ? kernels::sum_chunk(k, n) : kernels::computed_chunk(k);
}

/// A product in float32 or float64, as the kernel sees it.
template <class T>
struct MatMul {
  Product shapes;
  MatMulParams<T> params;
  double work;

  explicit MatMul(const NodeContext& c) : shapes(matmul_shapes(c)) {
    Product& p = shapes;
    if (p.b.elements(0, p.b.rank() - 2) == 1) {
      // One right side for all rows: one tall product.
      p.m = p.a.elements(0, p.a.rank() - 1);
      p.a = {p.m, p.k};
      p.b = {p.k, p.n};
      p.batch = {};
    }
    params.gemm.m = p.m;
    params.gemm.n = p.n;
    params.gemm.k = p.k;
    params.gemm.lda = p.k;
    params.gemm.ldc = p.n;
    params.gemm.k_chunk = GemmOf<T>::chunk(chunk_of(c, p.k, p.n));
    params.batch = batch_nest(p);
    if (c.node().op_type == "ScaledMatMul") params.gemm.scale = c.attr_float("alpha", 1);
    work = gemm_work(static_cast<double>(p.batch.elements()), params.gemm);
  }
};

/// The cost of a way that follows the rule.
template <CostFn kCost>
Cost floating(const NodeContext& c) {
  return follows_the_rule(c) ? kCost(c) : Cost::cannot("it is for float32 and float64");
}

Cost matmul_ahead_cost(const NodeContext& c) {
  if (!c.input(1).constant) return Cost::cannot("the right side is not constant");
  return Cost(float_or_double(c, [&]<class T>() { return MatMul<T>(c).work; }));
}

/// B was packed once for the model.
template <class T>
void lower_matmul_ahead_in(LowerContext& c) {
  MatMul<T> matmul(c);
  const Product& p = matmul.shapes;
  MatMulParams<T>& params = matmul.params;
  const int64_t matrices = p.b.elements(0, p.b.rank() - 2);
  const Ref b = panels_of<T>(c, c.known_value(1), {p.k, p.n, false, matrices});
  kernels::use_packed_b(params.gemm, nullptr);
  const auto each = static_cast<int64_t>(GemmOf<T>::packed_elements(p.k, p.n));
  const int64_t plain = std::max<int64_t>(p.k * p.n, 1);
  for (auto& stride : params.batch.strides[1]) stride = stride / plain * each;
  c.step(matmul_step<T>, params, {c.out(0), c.in(0), b, Ref{}}, matmul.work);
}
void lower_matmul_ahead(LowerContext& c) {
  float_or_double(c, [&]<class T>() { lower_matmul_ahead_in<T>(c); });
}

Cost matmul_in_place_cost(const NodeContext& c) {
  return float_or_double(c, [&]<class T>() {
    const MatMul<T> matmul(c);
    if (matmul.shapes.n % kernels::kPanelColumnsOf<T> != 0) {
      return Cost::cannot(sizeof(T) == 4 ? "the columns are no multiple of 16" : "the columns are no multiple of 8");
    }
    return Cost(matmul.work);
  });
}

/// B's panels are read where they lie.
void lower_matmul_in_place(LowerContext& c) {
  float_or_double(c, [&]<class T>() {
    MatMul<T> matmul(c);
    matmul.params.gemm.b_k_stride = matmul.shapes.n;
    matmul.params.gemm.b_panel_stride = kernels::kPanelColumnsOf<T>;
    c.step(matmul_step<T>, matmul.params, {c.out(0), c.in(0), c.in(1), Ref{}}, matmul.work);
  });
}

template <class T>
constexpr double kPackedPerNano = 16.0 / sizeof(Packed<T>);

Cost matmul_packed_cost(const NodeContext& c) {
  return float_or_double(c, [&]<class T>() {
    const MatMul<T> matmul(c);
    const Product& p = matmul.shapes;
    return Cost(matmul.work + static_cast<double>(p.batch.elements()) * static_cast<double>(p.k) *
                                  static_cast<double>(p.n) / kPackedPerNano<T>);
  });
}

/// B is packed in the run.
template <class T>
void lower_matmul_packed_in(LowerContext& c) {
  MatMul<T> matmul(c);
  const Product& p = matmul.shapes;
  const size_t room = GemmOf<T>::packed_elements(p.k, p.n) * sizeof(Packed<T>);
  matmul.params.pack = true;
  matmul.params.slots = pack_slots(c.threads(), p.batch.elements(), matmul.work, room);
  kernels::use_packed_b(matmul.params.gemm, nullptr);
  const Ref scratch = c.scratch(room * static_cast<size_t>(matmul.params.slots));
  c.step(matmul_step<T>, matmul.params, {c.out(0), c.in(0), c.in(1), scratch}, matmul.work);
}
void lower_matmul_packed(LowerContext& c) {
  float_or_double(c, [&]<class T>() { lower_matmul_packed_in<T>(c); });
}

/// For what sums in another order.
Cost plain_cost(const NodeContext& c) {
  return follows_the_rule(c) ? Cost::cannot("it sums in one chunk, and float32 and float64 in those of the rule")
                             : Cost(0);
}

/// The product in `out`: of half types in float where more is to come.
void lower_matmul_generic(LowerContext& c, Ref out, bool widened) {
  const Product p = matmul_shapes(c);
  const GenericParams params{p.m, p.n, p.k, p.k, 1, p.n, 1, batch_nest(p)};
  const double work = 2.0 * multiplied(p.batch.elements(), p.m, p.n, p.k);
  c.step(generic_step(c.input(0).dtype, widened), params,
         {out, c.in(0), c.in(1), c.scratch(static_cast<size_t>(p.n) * sizeof(double))}, work);
}
void lower_matmul_plain(LowerContext& c) { lower_matmul_generic(c, c.out(0), false); }

// ---- Gemm: alpha A' B' + beta C ----

struct GemmShapes {
  int64_t m, n, k;
  bool ta, tb;
};

GemmShapes gemm_shapes(const NodeContext& c) {
  const Shape &a = c.input(0).shape, &b = c.input(1).shape;
  if (a.rank() != 2 || b.rank() != 2) c.fail(cat("expected two matrices, got ", a.str(), " and ", b.str()));
  const bool ta = c.attr_int("transA", 0) != 0, tb = c.attr_int("transB", 0) != 0;
  const GemmShapes g{a[ta ? 1 : 0], b[tb ? 0 : 1], a[ta ? 0 : 1], ta, tb};
  if (b[tb ? 1 : 0] != g.k) {
    c.fail(cat("cannot multiply ", a.str(), ta ? " transposed" : "", " by ", b.str(), tb ? " transposed" : ""));
  }
  return g;
}

void infer_gemm(InferContext& c) {
  require_same_type(c, 0, 1);
  require_type(c, 0, kMatMulTypes);
  const GemmShapes g = gemm_shapes(c);
  const Shape out{g.m, g.n};
  if (c.has_input(2)) {
    require_same_type(c, 0, 2);
    if (broadcast(c.input(2).shape, out) != out) {
      c.fail(cat("C of shape ", c.input(2).shape.str(), " does not broadcast to ", out.str()));
    }
  }
  c.set_output(0, c.input(0).dtype, out);
}

struct AddScaledParams {
  float alpha, beta;
  bool has_c;
  LoopNest<2> nest;  // output, C
};

/// out = alpha product + beta C; of integers, what stands behind the point is cut off at the end.
template <class T>
void add_scaled_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const AddScaledParams*>(params);
  auto* out = reinterpret_cast<T*>(io[0]);
  const auto* product = reinterpret_cast<const Compute<T>*>(io[1]);
  const auto* addend = reinterpret_cast<const T*>(io[2]);
  const auto factor = [](float v) {
    if constexpr (std::is_integral_v<T>)
      return saturated<T>(static_cast<double>(v));
    else
      return static_cast<Compute<T>>(v);
  };
  const auto alpha = factor(p.alpha), beta = factor(p.beta);
  const auto is_fraction = [](float v) { return v != std::trunc(v); };
  const bool fractions = std::is_integral_v<T> && (is_fraction(p.alpha) || (p.has_c && is_fraction(p.beta)));
  for_each_piece(p.nest, [&](const std::array<int64_t, 2>& offsets, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = offsets[0] + i * p.nest.inner_stride(0);
      if constexpr (std::is_integral_v<T>) {
        if (fractions) {
          double sum = static_cast<double>(p.alpha) * static_cast<double>(product[at]);
          if (p.has_c)
            sum += static_cast<double>(p.beta) * static_cast<double>(addend[offsets[1] + i * p.nest.inner_stride(1)]);
          out[at] = saturated<T>(sum);
          continue;
        }
      }
      Compute<T> sum = wrap_mul<Compute<T>>(alpha, product[at]);
      if (p.has_c) {
        const Compute<T> c = load(addend[offsets[1] + i * p.nest.inner_stride(1)]);
        sum = wrap_add(sum, wrap_mul<Compute<T>>(beta, c));
      }
      out[at] = store<T>(sum);
    }
  });
}

// ---- ScaledMatMul: MatMul times the attribute alpha ----

void lower_scale(LowerContext& c, Ref product) {
  const Shape flat{c.output(0).shape.elements()};
  const AddScaledParams p{c.attr_float("alpha", 1), 0, false, make_nest<2>(flat, {flat.strides(), Strides{}})};
  const StepFn fn = dispatch<kMatMulTypes>(c.input(0).dtype, []<class T>() -> StepFn { return add_scaled_step<T>; });
  c.step(fn, p, {c.out(0), product, Ref{}}, static_cast<double>(flat[0]));
}

void lower_scaled_plain(LowerContext& c) {
  const DType held = compute_type(c.input(0).dtype);
  const Ref product = begin_output(c, 0, held);
  lower_matmul_generic(c, product, held != c.input(0).dtype);
  lower_scale(c, product);
}

struct TransposeParams {
  int64_t rows, cols;  // of the source
};
template <class T>
void transpose_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const TransposeParams*>(params);
  auto* out = reinterpret_cast<T*>(io[0]);
  const auto* in = reinterpret_cast<const T*>(io[1]);
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(2 * p.cols); ++r) {
    for (int64_t col = 0; col < p.cols; ++col) out[col * p.rows + r] = in[r * p.cols + col];
  }
}

struct PackParams {
  int64_t k, n;
  bool transposed;
};
template <class T>
void pack_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const PackParams*>(params);
  pack_in_blocks(reinterpret_cast<const Element<T>*>(io[1]), p.transposed, p.k, p.n,
                 reinterpret_cast<Packed<T>*>(io[0]));
}

/// What Gemm does besides the product.
struct GemmTail {
  float alpha, beta;
  bool has_c;  // C is read
  bool needed() const { return alpha != 1 || has_c; }
};

GemmTail gemm_tail(const NodeContext& c) {
  const float beta = c.attr_float("beta", 1);
  return {c.attr_float("alpha", 1), beta, c.has_input(2) && beta != 0};
}

/// `product` is c.out(0), or the product in the type that the node computes in.
void lower_gemm_tail(LowerContext& c, const GemmShapes& g, const GemmTail& tail, Ref product) {
  if (!tail.needed()) return;
  const Shape out{g.m, g.n};
  const Strides addend = tail.has_c ? broadcast_strides(c.input(2).shape, out) : Strides{};
  const AddScaledParams p{tail.alpha, tail.beta, tail.has_c, make_nest<2>(out, {out.strides(), addend})};
  const StepFn fn = dispatch<kMatMulTypes>(c.input(0).dtype, []<class T>() -> StepFn { return add_scaled_step<T>; });
  c.step(fn, p, {c.out(0), product, tail.has_c ? c.in(2) : Ref{}}, multiplied(g.m, g.n));
}

struct TimesParams {
  float factor;
  int64_t n, stride;  // 0: one element for all
};
template <class T>
void times_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const TimesParams*>(params);
  const auto* x = reinterpret_cast<const T*>(io[1]);
  for (int64_t i = 0; i < p.n; ++i) reinterpret_cast<T*>(io[0])[i] = static_cast<T>(p.factor) * x[i * p.stride];
}

/// What the product's own step adds of beta C: a row, a column, or C as it is. Else that is left to a step of its own.
struct GemmAddend {
  BiasKind kind = BiasKind::kNone;
  Ref bias, residual;
  bool done() const { return kind != BiasKind::kNone || residual.valid(); }
};

template <class T>
GemmAddend gemm_addend(LowerContext& c, const GemmShapes& g, float beta) {
  const Shape& addend = c.input(2).shape;
  const bool one_row = addend.rank() < 2 || addend[0] == 1, one_column = addend.elements() == 1 || addend.back() == 1;
  if (!one_row && !one_column) return beta == 1 ? GemmAddend{BiasKind::kNone, Ref{}, c.in(2)} : GemmAddend{};
  const BiasKind kind = one_row ? BiasKind::kPerColumn : BiasKind::kPerRow;
  const int64_t n = one_row ? g.n : g.m;
  if (beta == 1 && addend.elements() == n) return {kind, c.in(2), Ref{}};
  const Ref bias = c.scratch(static_cast<size_t>(n) * sizeof(T));
  c.step(times_step<T>, TimesParams{beta, n, addend.elements() == n ? 1 : 0}, {bias, c.in(2)}, static_cast<double>(n));
  return {kind, bias, Ref{}};
}

/// The product, and what follows it; `make_b` gives B packed.
template <class T, class MakeB>
void lower_gemm_by_panels(LowerContext& c, MakeB&& make_b) {
  const GemmShapes g = gemm_shapes(c);
  GemmTail tail = gemm_tail(c);
  const GemmAddend addend = tail.has_c ? gemm_addend<Element<T>>(c, g, tail.beta) : GemmAddend{};
  Ref a = c.in(0);
  if (g.ta) {
    const Ref transposed = c.scratch(static_cast<size_t>(g.m * g.k) * sizeof(Element<T>));
    c.step(transpose_step<Element<T>>, TransposeParams{g.k, g.m}, {transposed, a}, multiplied(g.m, g.k));
    a = transposed;
  }
  LinearParams<T> p;
  p.gemm.m = g.m;
  p.gemm.n = g.n;
  p.gemm.k = g.k;
  p.gemm.lda = g.k;
  p.gemm.ldc = g.n;
  p.gemm.k_chunk = GemmOf<T>::chunk(chunk_of(c, g.k, g.n));
  p.gemm.bias_kind = addend.kind;
  p.gemm.ldr = g.n;
  p.gemm.scale = std::exchange(tail.alpha, 1.0f);
  if (addend.done()) tail.has_c = false;
  kernels::use_packed_b(p.gemm, nullptr);
  const Ref b = make_b(g);
  c.step(linear_step<T>, p, {c.out(0), a, b, addend.bias, addend.residual}, gemm_work(1, p.gemm));
  lower_gemm_tail(c, g, tail, c.out(0));
}

template <class T>
double gemm_nanos(const GemmShapes& g) {
  GemmArgsOf<T> args;
  args.m = g.m;
  args.n = g.n;
  args.k = g.k;
  return gemm_work(1, args);
}

Cost gemm_ahead_cost(const NodeContext& c) {
  if (!c.input(1).constant) return Cost::cannot("the right side is not constant");
  return Cost(float_or_double(c, [&]<class T>() { return gemm_nanos<T>(gemm_shapes(c)); }));
}
template <class T>
void lower_gemm_ahead_in(LowerContext& c) {
  const auto ahead = [&](const GemmShapes& g) { return panels_of<T>(c, c.known_value(1), {g.k, g.n, g.tb}); };
  lower_gemm_by_panels<T>(c, ahead);
}
void lower_gemm_ahead(LowerContext& c) {
  float_or_double(c, [&]<class T>() { lower_gemm_ahead_in<T>(c); });
}

template <class T>
double packing_nanos(const GemmShapes& g) {
  return multiplied(g.k, g.n) / kPackedPerNano<T>;
}

Cost gemm_packed_cost(const NodeContext& c) {
  const GemmShapes g = gemm_shapes(c);
  return Cost(float_or_double(c, [&]<class T>() { return gemm_nanos<T>(g) + packing_nanos<T>(g); }));
}
template <class T>
void lower_gemm_packed_in(LowerContext& c) {
  lower_gemm_by_panels<T>(c, [&](const GemmShapes& g) {
    const Ref b = c.scratch(GemmOf<T>::packed_elements(g.k, g.n) * sizeof(Packed<T>));
    c.step(pack_step<T>, PackParams{g.k, g.n, g.tb}, {b, c.in(1)}, packing_nanos<T>(g));
    return b;
  });
}
void lower_gemm_packed(LowerContext& c) {
  float_or_double(c, [&]<class T>() { lower_gemm_packed_in<T>(c); });
}

void lower_gemm_plain(LowerContext& c) {
  const GemmShapes g = gemm_shapes(c);
  const GenericParams p{
      g.m, g.n, g.k, g.ta ? 1 : g.k, g.ta ? g.m : 1, g.tb ? 1 : g.n, g.tb ? g.k : 1, make_nest<2>({}, {})};
  const GemmTail tail = gemm_tail(c);
  const DType held = tail.needed() ? compute_type(c.input(0).dtype) : c.input(0).dtype;
  const bool widened = held != c.input(0).dtype;
  const Ref product = widened ? c.scratch(static_cast<size_t>(g.m * g.n) * sizeof(float)) : c.out(0);
  c.step(generic_step(c.input(0).dtype, widened), p,
         {product, c.in(0), c.in(1), c.scratch(static_cast<size_t>(g.n) * sizeof(double))},
         2.0 * multiplied(g.m, g.n, g.k));
  lower_gemm_tail(c, g, tail, product);
}

/// What is summed over: by operand, 0 or 1.
Axes summed(const NodeContext& c, size_t i, bool transposed) {
  const auto rank = static_cast<int64_t>(c.input(i).shape.rank());
  const int64_t axis = (i == 0) != transposed ? rank - 1 : rank - 2;
  return one_axis(std::max<int64_t>(axis, 0));
}
Axes mixed_by_matmul(const NodeContext& c, size_t i) { return i < 2 ? summed(c, i, false) : Axes{0}; }
Axes mixed_by_gemm(const NodeContext& c, size_t i) {
  return i < 2 ? summed(c, i, c.attr_int(i == 0 ? "transA" : "transB", 0) != 0) : Axes{0};
}

}  // namespace

void register_linear(OpRegistry& r) {
  constexpr Precision kBf16 = Precision::kBf16;
  r.add(
      {.name = "MatMul",
       .min_inputs = 2,
       .max_inputs = 2,
       .max_outputs = 1,
       .infer = infer_matmul,
       .mixed_axes = mixed_by_matmul},
      {{.name = "ahead", .lower = lower_matmul_ahead, .cost = floating<matmul_ahead_cost>},
       {.name = "in_place", .lower = lower_matmul_in_place, .cost = floating<matmul_in_place_cost>},
       {.name = "packed", .lower = lower_matmul_packed, .cost = floating<matmul_packed_cost>},
       {.name = "plain", .lower = lower_matmul_plain, .cost = plain_cost},
       {.name = "bf16_ahead", .lower = lower_matmul_ahead_in<BFloat16>, .cost = matmul_ahead_cost, .precision = kBf16},
       {.name = "bf16_packed",
        .lower = lower_matmul_packed_in<BFloat16>,
        .cost = matmul_packed_cost,
        .precision = kBf16}});
  r.add(
      {.domain = kInternal,
       .name = "ScaledMatMul",
       .min_inputs = 2,
       .max_inputs = 2,
       .max_outputs = 1,
       .infer = infer_matmul,
       .mixed_axes = mixed_by_matmul},
      {{.name = "ahead", .lower = lower_matmul_ahead, .cost = floating<matmul_ahead_cost>},
       {.name = "in_place", .lower = lower_matmul_in_place, .cost = floating<matmul_in_place_cost>},
       {.name = "packed", .lower = lower_matmul_packed, .cost = floating<matmul_packed_cost>},
       {.name = "plain", .lower = lower_scaled_plain, .cost = plain_cost},
       {.name = "bf16_ahead", .lower = lower_matmul_ahead_in<BFloat16>, .cost = matmul_ahead_cost, .precision = kBf16},
       {.name = "bf16_packed",
        .lower = lower_matmul_packed_in<BFloat16>,
        .cost = matmul_packed_cost,
        .precision = kBf16}});
  r.add(
      {.name = "Gemm",
       .since = 7,
       .min_inputs = 2,
       .max_inputs = 3,
       .max_outputs = 1,
       .infer = infer_gemm,
       .mixed_axes = mixed_by_gemm},
      {{.name = "ahead", .lower = lower_gemm_ahead, .cost = floating<gemm_ahead_cost>},
       {.name = "packed", .lower = lower_gemm_packed, .cost = floating<gemm_packed_cost>},
       {.name = "plain", .lower = lower_gemm_plain, .cost = plain_cost},
       {.name = "bf16_ahead", .lower = lower_gemm_ahead_in<BFloat16>, .cost = gemm_ahead_cost, .precision = kBf16},
       {.name = "bf16_packed", .lower = lower_gemm_packed_in<BFloat16>, .cost = gemm_packed_cost, .precision = kBf16}});
  r.add({.domain = kInternal,
         .name = "Linear",
         .min_inputs = 2,
         .max_inputs = 3,
         .max_outputs = 1,
         .infer = infer_linear},
        {{.name = kOnlyLowering, .lower = lower_linear<float>},
         {.name = "bf16", .lower = lower_linear<BFloat16>, .precision = kBf16}});
  // Several of them, for devices alone: engine/compile/join_layers.cc writes it when all shapes are known.
  r.add({.domain = kInternal, .name = "Mlp", .min_inputs = 5, .max_outputs = 1}, std::vector<Lowering>());
}

}  // namespace inferkit
