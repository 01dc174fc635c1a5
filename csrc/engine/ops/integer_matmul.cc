// MatMulInteger and QLinearMatMul: products of bytes, summed exactly in int32 (which wraps where it must).
#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "engine/ops/common/byte_product.h"
#include "engine/ops/common/quantization.h"
#include "engine/ops/common/requantize.h"
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
  if (shape.elements() != count) c.unsupported(cat(name, " of shape ", shape.str(), " for ", count, " lines"));
  return 1;
}

struct ProductParams {
  kernels::IgemmArgs gemm;  // its pointers are filled in by the step
  LoopNest<2> batch;        // offsets of the matrices, in bytes of what is packed
};

/// io: the sums, packed a, packed b, and their zero points or null.
void product_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ProductParams*>(params);
  kernels::IgemmArgs g = p.gemm;
  g.a_zero.data = io[3];
  g.b_zero.data = io[4];
  g.c = reinterpret_cast<int32_t*>(io[0]);
  WorkMeter meter;
  for_each_run(p.batch, [&](const std::array<int64_t, 2>& offsets, int64_t) {
    for (int64_t i = 0; i < p.batch.inner() && meter.go_on(g.m * g.n * g.k / 64); ++i, g.c += g.m * g.n) {
      g.a = io[1] + offsets[0] + i * p.batch.inner_stride(0);
      g.b = io[2] + offsets[1] + i * p.batch.inner_stride(1);
      igemm_parallel(g, context);
    }
  });
}

void lower_product(LowerContext& c, const IntegerProduct& p, Ref out, size_t a, size_t b, size_t a_zero,
                   size_t b_zero) {
  if (p.batch.elements() * p.m * p.n == 0) return;
  ProductParams params{};
  params.gemm.m = p.m;
  params.gemm.n = params.gemm.ldc = p.n;
  params.gemm.k = p.k;
  params.gemm.a_signed = c.input(a).dtype == DType::kI8;
  params.gemm.b_signed = c.input(b).dtype == DType::kI8;
  params.gemm.a_zero.per_line = line_stride(c, a_zero, "a zero point", p.m) != 0;
  params.gemm.b_zero.per_line = line_stride(c, b_zero, "a zero point", p.n) != 0;
  Strides a_bytes = p.a, b_bytes = p.b;
  for (size_t d = 0; d < p.batch.rank(); ++d) {
    a_bytes[d] *= p.m * kernels::igemm_row_bytes(kernels::igemm_kernels(), p.k);
    b_bytes[d] *= packed_right_bytes(p.k, p.n);
  }
  params.batch = make_nest<2>(p.batch, {a_bytes, b_bytes});
  const Ref left = packed_left(c, a, p.a_matrices * p.m, p.k), right = packed_right(c, b, p.b_matrices, p.k, p.n);
  const auto zero = [&](size_t i) { return c.has_input(i) ? c.in(i) : Ref{}; };
  c.step(product_step, params, {out, left, right, zero(a_zero), zero(b_zero)},
         static_cast<double>(p.batch.elements() * p.m) * static_cast<double>(p.n * p.k) / 100);
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
  r.add({.name = "QLinearMatMul",
         .since = 10,
         .min_inputs = 8,
         .max_inputs = 8,
         .max_outputs = 1,
         .infer = infer_qlinear_matmul},
        lower_qlinear_matmul);
}

}  // namespace inferkit
