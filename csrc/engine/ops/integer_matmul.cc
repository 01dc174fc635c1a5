// MatMulInteger and QLinearMatMul: products of bytes, summed exactly in int32 (which wraps where it must). And products
// of dequantized bytes, whose sums become floats as they leave the registers.
#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "engine/ops/common/byte_product.h"
#include "engine/ops/common/quantization.h"
#include "engine/ops/common/requantize.h"
#include "graph/passes/pattern.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

struct IntegerProduct {
  Shape batch, out;
  int64_t m, n, k;
  Strides a, b;  // over the batch dimensions, in matrices
  int64_t a_matrices, b_matrices;
};

/// Of inputs i and j, broadcast as MatMul does.
IntegerProduct integer_product(const NodeContext& c, size_t i, size_t j) {
  Shape a = c.input(i).shape, b = c.input(j).shape;
  if (a.empty() || b.empty()) c.fail("a scalar cannot be multiplied");
  const bool vector_a = a.rank() == 1, vector_b = b.rank() == 1;
  if (vector_a) a.insert(0, 1);
  if (vector_b) b.push_back(1);
  const Shape lead_a(a.dims().first(a.rank() - 2)), lead_b(b.dims().first(b.rank() - 2));
  const auto batch = broadcast(lead_a, lead_b);
  if (a.back() != b[b.rank() - 2] || !batch) {
    c.fail(cat("cannot multiply ", c.input(i).shape.str(), " by ", c.input(j).shape.str()));
  }
  IntegerProduct p{*batch,
                   *batch,
                   a[a.rank() - 2],
                   b.back(),
                   a.back(),
                   broadcast_strides(lead_a, *batch),
                   broadcast_strides(lead_b, *batch),
                   lead_a.elements(),
                   lead_b.elements()};
  if (!vector_a) p.out.push_back(p.m);
  if (!vector_b) p.out.push_back(p.n);
  return p;
}

/// The stride of input i over `count` rows or columns: 0 where one value holds for all. Batches of them are refused.
int64_t line_stride(const NodeContext& c, size_t i, std::string_view name, int64_t count) {
  if (!c.has_input(i) || c.input(i).shape.elements() == 1) return 0;
  const Shape& shape = c.input(i).shape;
  if (shape.elements() != count) c.unsupported(cat(name, " of shape ", shape.str(), " for ", counted(count, "line")));
  return 1;
}

struct ProductParams {
  kernels::IgemmArgs gemm;  // its pointers are filled in by the step
  LoopNest<2> batch;        // offsets of the matrices, in bytes of what is packed
  bool scale_per_column = false;
};

/// The scales of ScaledSums, in room for m and n floats: one for the rows, `scale` for the columns.
void fill_scales(const ProductParams& p, const float* scale, float* room, kernels::ScaledSums& out) {
  float* const columns = std::fill_n(room, p.gemm.m, 1.0f);
  if (p.scale_per_column) {
    std::copy_n(scale, p.gemm.n, columns);
  } else {
    std::fill_n(columns, p.gemm.n, *scale);
  }
  out.row = room;
  out.column = columns;
}

/// Of all matrices: the next one goes behind the last.
template <class Next>
void each_product(const ProductParams& p, kernels::IgemmArgs& g, std::byte* const* io, const ExecContext& context,
                  Next&& next) {
  g.a_zero.data = io[3];
  g.b_zero.data = io[4];
  WorkMeter meter;
  for_each_run(p.batch, [&](const std::array<int64_t, 2>& offsets, int64_t) {
    for (int64_t i = 0; i < p.batch.inner() && meter.go_on(g.m * g.n * g.k / 64); ++i, next()) {
      g.a = io[1] + offsets[0] + i * p.batch.inner_stride(0);
      g.b = io[2] + offsets[1] + i * p.batch.inner_stride(1);
      igemm_parallel(g, context);
    }
  });
}

/// io: the sums, packed a, packed b, and their zero points or null.
void product_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ProductParams*>(params);
  kernels::IgemmArgs g = p.gemm;
  g.c = reinterpret_cast<int32_t*>(io[0]);
  each_product(p, g, io, context, [&] { g.c += g.m * g.n; });
}

/// io: y, packed a, packed b, their zero points or null, the scale, the bias or null, room for the scales.
void scaled_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ProductParams*>(params);
  kernels::IgemmArgs g = p.gemm;
  fill_scales(p, reinterpret_cast<const float*>(io[5]), reinterpret_cast<float*>(io[7]), g.scaled);
  g.scaled.y = reinterpret_cast<float*>(io[0]);
  g.scaled.ldy = g.n;
  g.scaled.base = reinterpret_cast<const float*>(io[6]);  // one row for all
  each_product(p, g, io, context, [&] { g.scaled.y += g.m * g.n; });
}

/// What a product of two inputs takes, and their packed forms.
struct Lowered {
  ProductParams params;
  Ref left, right;
};
kernels::IgemmArgs gemm_of(const NodeContext& c, const IntegerProduct& p, size_t a, size_t b, size_t a_zero,
                           size_t b_zero) {
  kernels::IgemmArgs g;
  g.m = p.m;
  g.n = g.ldc = p.n;
  g.k = p.k;
  g.a_signed = c.input(a).dtype == DType::kI8;
  g.b_signed = c.input(b).dtype == DType::kI8;
  g.a_zero.per_line = line_stride(c, a_zero, "a zero point", p.m) != 0;
  g.b_zero.per_line = line_stride(c, b_zero, "a zero point", p.n) != 0;
  return g;
}
Lowered lower_operands(LowerContext& c, const IntegerProduct& p, size_t a, size_t b, size_t a_zero, size_t b_zero) {
  ProductParams params{};
  params.gemm = gemm_of(c, p, a, b, a_zero, b_zero);
  Strides a_bytes = p.a, b_bytes = p.b;
  for (size_t d = 0; d < p.batch.rank(); ++d) {
    a_bytes[d] *= p.m * kernels::igemm_row_bytes(kernels::igemm_kernels(), p.k);
    b_bytes[d] *= packed_right_bytes(p.k, p.n);
  }
  params.batch = make_nest<2>(p.batch, {a_bytes, b_bytes});
  const Ref left = packed_left(c, a, p.a_matrices * p.m, p.k), right = packed_right(c, b, p.b_matrices, p.k, p.n);
  return {params, left, right};
}
Ref in_or_none(LowerContext& c, size_t i) { return c.has_input(i) ? c.in(i) : Ref{}; }
double product_nanos(const IntegerProduct& p) {
  return multiplied(p.batch.elements(), p.m, p.n, p.k) / kernels::igemm_kernels().products_per_nano;
}

void lower_product(LowerContext& c, const IntegerProduct& p, Ref out, size_t a, size_t b, size_t a_zero,
                   size_t b_zero) {
  if (p.batch.elements() * p.m * p.n == 0) return;
  const Lowered l = lower_operands(c, p, a, b, a_zero, b_zero);
  c.step(product_step, l.params, {out, l.left, l.right, in_or_none(c, a_zero), in_or_none(c, b_zero)},
         product_nanos(p));
}

// ---- MatMulInteger: A, B, a_zero_point, b_zero_point ----------------------------------------------------------------

void check_operand(const NodeContext& c, size_t value, size_t zero) {
  require_type(c, value, kByteTypes);
  if (c.has_input(zero)) require_same_type(c, value, zero);
}

void infer_matmul_integer(InferContext& c) {
  const int64_t rank = c.attr_int("rank", 0);
  if (rank != 0 && static_cast<int64_t>(c.input(0).shape.rank()) != rank) {
    c.fail(cat("expected a matrix, got ", c.input(0).shape.str()));
  }
  check_operand(c, 0, 2);
  check_operand(c, 1, 3);
  const IntegerProduct p = integer_product(c, 0, 1);
  line_stride(c, 2, "a zero point", p.m);
  line_stride(c, 3, "a zero point", p.n);
  c.set_output(0, DType::kI32, p.out);
}
void lower_matmul_integer(LowerContext& c) { lower_product(c, integer_product(c, 0, 1), c.out(0), 0, 1, 2, 3); }

// ---- DequantizedMatMul: A, B, a_zero_point, b_zero_point, scale, bias -----------------------------------------------

constexpr int64_t kPart = kLongestByteSum / 4 * 4;  // whole steps of every kernel

struct LongParams {
  ProductParams product;  // of kPart elements of K
  int64_t k;
  LoopNest<2> batch;  // offsets of the matrices, in bytes
  size_t left_bytes;  // of what is packed
};

/// Longer sums than int32 holds, part by part. io: as scaled_step, but a and b as they are; behind that room for what
/// is packed of them.
void long_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const LongParams*>(params);
  const auto& kernels = kernels::igemm_kernels();
  kernels::IgemmArgs g = p.product.gemm;
  fill_scales(p.product, reinterpret_cast<const float*>(io[5]), reinterpret_cast<float*>(io[7]), g.scaled);
  g.a_zero.data = io[3];
  g.b_zero.data = io[4];
  g.scaled.y = reinterpret_cast<float*>(io[0]);
  g.scaled.ldy = g.n;
  g.a = io[8];
  g.b = io[8] + p.left_bytes;
  WorkMeter meter;
  for_each_run(p.batch, [&](const std::array<int64_t, 2>& offsets, int64_t) {
    for (int64_t i = 0; i < p.batch.inner(); ++i, g.scaled.y += g.m * g.n) {
      const std::byte* a = io[1] + offsets[0] + i * p.batch.inner_stride(0);
      const std::byte* b = io[2] + offsets[1] + i * p.batch.inner_stride(1);
      g.scaled.base = reinterpret_cast<const float*>(io[6]);
      g.scaled.base_row = 0;
      for (int64_t first = 0; first < p.k; first += kPart) {
        g.k = std::min(kPart, p.k - first);
        if (!meter.go_on((g.m + g.n) * g.k + g.m * g.n * g.k / 64)) return;
        kernels.pack_a({a + first, p.k, 1, g.a_signed}, g.m, g.k, io[8]);
        kernels.pack_b({b + first * g.n, g.n, 1, g.b_signed}, g.k, g.n, io[8] + p.left_bytes);
        igemm_parallel(g, context);
        g.scaled.base = g.scaled.y;
        g.scaled.base_row = g.n;
      }
    }
  });
}

void infer_dequantized_matmul(InferContext& c) {
  infer_matmul_integer(c);
  const Shape& out = c.output(0).shape;
  const int64_t columns = out.empty() ? 1 : out.back();
  require_type(c, 4, types(DType::kF32));
  line_stride(c, 4, "a scale", columns);
  if (c.has_input(5) && c.input(5).shape != Shape{columns}) c.fail("the bias does not fit the columns");
  c.set_output(0, DType::kF32, out);
}

void lower_dequantized_matmul(LowerContext& c) {
  const IntegerProduct p = integer_product(c, 0, 1);
  if (p.batch.elements() * p.m * p.n == 0) return;
  const Ref room = c.scratch(room_for({p.m}, sizeof(float)) + room_for({p.n}, sizeof(float)));
  const bool per_column = line_stride(c, 4, "a scale", p.n) != 0;
  if (p.k <= kLongestByteSum) {
    Lowered l = lower_operands(c, p, 0, 1, 2, 3);
    l.params.scale_per_column = per_column;
    c.step(scaled_step, l.params,
           {c.out(0), l.left, l.right, in_or_none(c, 2), in_or_none(c, 3), c.in(4), in_or_none(c, 5), room},
           product_nanos(p));
    return;
  }
  LongParams params{};
  params.product.gemm = gemm_of(c, p, 0, 1, 2, 3);
  params.product.scale_per_column = per_column;
  params.k = p.k;
  Strides a = p.a, b = p.b;
  for (size_t d = 0; d < p.batch.rank(); ++d) {
    a[d] *= p.m * p.k;
    b[d] *= p.k * p.n;
  }
  params.batch = make_nest<2>(p.batch, {a, b});
  const int64_t left = p.m * kernels::igemm_row_bytes(kernels::igemm_kernels(), kPart);
  params.left_bytes = static_cast<size_t>((left + 63) / 64 * 64);
  const Ref packed = c.scratch(params.left_bytes + static_cast<size_t>(packed_right_bytes(kPart, p.n)));
  c.step(long_step, params,
         {c.out(0), c.in(0), c.in(1), in_or_none(c, 2), in_or_none(c, 3), c.in(4), in_or_none(c, 5), room, packed},
         2 * product_nanos(p));
}

// ---- QLinearMatMul: a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point -----------------------

void infer_qlinear_matmul(InferContext& c) {
  check_operand(c, 0, 2);
  check_operand(c, 3, 5);
  for (const size_t i : {1, 4, 6}) require_type(c, i, kScaleTypes);
  require_type(c, 7, kByteTypes);
  const IntegerProduct p = integer_product(c, 0, 3);
  line_stride(c, 1, "a scale", p.m);
  line_stride(c, 2, "a zero point", p.m);
  line_stride(c, 4, "a scale", p.n);
  line_stride(c, 5, "a zero point", p.n);
  line_stride(c, 6, "the result's scale", 1);
  line_stride(c, 7, "the result's zero point", 1);
  c.set_output(0, c.input(7).dtype, p.out);
}

void lower_qlinear_matmul(LowerContext& c) {
  const IntegerProduct p = integer_product(c, 0, 3);
  const Ref sums = c.scratch(static_cast<size_t>(p.out.elements()) * sizeof(int32_t));
  lower_product(c, p, sums, 0, 3, 2, 5);
  const RequantizeParams r{p.batch.elements() * p.m,  p.n, 1, std::max<int64_t>(1, p.m), line_stride(c, 1, "", p.m),
                           line_stride(c, 4, "", p.n)};
  lower_requantize(c, r, c.out(0), sums, scales_as_float(c, 1), scales_as_float(c, 4), scales_as_float(c, 6), c.in(7),
                   Ref{});
}

}  // namespace

void register_integer_matmul(OpRegistry& r) {
  OpSchema matmul{.name = "MatMulInteger",
                  .since = 10,
                  .min_inputs = 2,
                  .max_inputs = 4,
                  .max_outputs = 1,
                  .infer = infer_matmul_integer};
  r.add(matmul, lower_matmul_integer);
  matmul.domain = kInternal;  // of a quantized Gemm, with the attribute `rank`
  r.add(matmul, lower_matmul_integer);
  matmul.name = "DequantizedMatMul";  // with the attribute `rank`, too
  matmul.min_inputs = 5;
  matmul.max_inputs = 6;
  matmul.infer = infer_dequantized_matmul;
  r.add(matmul, lower_dequantized_matmul);
  r.add({.name = "QLinearMatMul",
         .since = 10,
         .min_inputs = 8,
         .max_inputs = 8,
         .max_outputs = 1,
         .infer = infer_qlinear_matmul},
        lower_qlinear_matmul);
}

}  // namespace inferkit
