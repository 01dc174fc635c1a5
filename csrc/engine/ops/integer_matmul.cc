// MatMulInteger and QLinearMatMul: products of bytes, summed exactly in int32 (which wraps where it must).
#include "engine/op_registry.h"
#include "engine/ops/common/quantization.h"
#include "engine/ops/common/requantize.h"
#include "engine/ops/parallel.h"
#include "engine/ops/strided.h"

namespace inferkit {
namespace {

struct IntegerProduct {
  Shape batch, out;
  int64_t m, n, k;
  Strides a, b;  // over the batch dimensions, in elements
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
                   broadcast_strides(lead_b, *batch)};
  for (size_t d = 0; d < batch->rank(); ++d) {
    p.a[d] *= p.m * p.k;
    p.b[d] *= p.k * p.n;
  }
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
  LoopNest<2> batch;
  int64_t m, n, k;
  int64_t a_zero, b_zero;  // strides of the zero points
};

/// io: the sums, a, b, and their zero points or null.
template <class A, class B>
void product_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ProductParams*>(params);
  const auto* a_zero = reinterpret_cast<const A*>(io[3]);
  const auto* b_zero = reinterpret_cast<const B*>(io[4]);
  const int64_t inner = p.batch.inner();
  for_each_run(p.batch, [&](const std::array<int64_t, 2>& offsets, int64_t run) {
    for (int64_t i = 0; i < inner; ++i) {
      const A* a = reinterpret_cast<const A*>(io[1]) + offsets[0] + i * p.batch.inner_stride(0);
      const B* b = reinterpret_cast<const B*>(io[2]) + offsets[1] + i * p.batch.inner_stride(1);
      auto* out = reinterpret_cast<uint32_t*>(io[0]) + (run * inner + i) * p.m * p.n;
      for_ranges(context, p.m, (int64_t{1} << 18) / std::max<int64_t>(1, p.n * p.k), [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
          uint32_t* sums = out + row * p.n;
          std::fill(sums, sums + p.n, 0u);
          const int32_t zero = a_zero ? int32_t{a_zero[row * p.a_zero]} : 0;
          for (int64_t k = 0; k < p.k; ++k) {
            const int32_t x = int32_t{a[row * p.k + k]} - zero;
            const B* line = b + k * p.n;
            if (p.b_zero == 0) {
              const int32_t shift = b_zero ? int32_t{*b_zero} : 0;
              for (int64_t j = 0; j < p.n; ++j) sums[j] += static_cast<uint32_t>(x * (int32_t{line[j]} - shift));
            } else {
              for (int64_t j = 0; j < p.n; ++j) sums[j] += static_cast<uint32_t>(x * (int32_t{line[j]} - b_zero[j]));
            }
          }
        }
      });
    }
  });
}

void lower_product(LowerContext& c, const IntegerProduct& p, Ref out, size_t a, size_t b, size_t a_zero,
                   size_t b_zero) {
  const ProductParams params{
      make_nest<2>(p.batch, {p.a, p.b}),          p.m, p.n, p.k, line_stride(c, a_zero, "a zero point", p.m),
      line_stride(c, b_zero, "a zero point", p.n)};
  const StepFn fn = dispatch<kByteTypes>(c.input(a).dtype, [&]<class A>() -> StepFn {
    return dispatch<kByteTypes>(c.input(b).dtype, []<class B>() -> StepFn { return product_step<A, B>; });
  });
  const auto zero = [&](size_t i) { return c.has_input(i) ? c.in(i) : Ref{}; };
  c.step(fn, params, {out, c.in(a), c.in(b), zero(a_zero), zero(b_zero)},
         static_cast<double>(p.batch.elements() * p.m) * static_cast<double>(p.n * p.k) / 4);
}

// ---- MatMulInteger: A, B, a_zero_point, b_zero_point ----------------------------------------------------------------

void check_operand(const NodeContext& c, size_t value, size_t zero) {
  require_type(c, value, kByteTypes);
  if (c.has_input(zero)) require_same_type(c, value, zero);
}

void infer_matmul_integer(InferContext& c) {
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
  r.add({.name = "MatMulInteger",
         .since = 10,
         .min_inputs = 2,
         .max_inputs = 4,
         .max_outputs = 1,
         .infer = infer_matmul_integer},
        lower_matmul_integer);
  r.add({.name = "QLinearMatMul",
         .since = 10,
         .min_inputs = 8,
         .max_inputs = 8,
         .max_outputs = 1,
         .infer = infer_qlinear_matmul},
        lower_qlinear_matmul);
}

}  // namespace inferkit
