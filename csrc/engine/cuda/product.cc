// Matrix products: Linear, MatMul, Gemm. The chunks of K are those of engine/ops/linear.cc, so the bits are, too.
#include "engine/cuda/product.h"

#include "engine/cuda/functions.h"
#include "engine/cuda/launch.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

using device::GemmParams;

/// io: c, a, b, bias.
void run_product(const void* params, std::byte* const* io, const ExecContext& context) {
  launch_product(*static_cast<const GemmParams*>(params), io, context);
}

// ---- Linear ---------------------------------------------------------------------------------------------------------

Cost linear_cost(const NodeContext& c) {
  return fused_function(c) ? Cost(0) : Cost::cannot("CUDA has not the activation that is fused into it");
}

void lower_linear(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  GemmParams p =
      plain_product(x.elements(0, x.rank() - 1), c.output(0).shape.back(), x.back(), c.attr_int("transB", 0) != 0);
  p.chunk = kernels::sum_chunk(p.k, p.n);
  const Function f = *fused_function(c);
  p.act = f.op;
  p.alpha = f.alpha;
  p.beta = f.beta;
  c.step(run_product, p, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}});
}

// ---- MatMul ---------------------------------------------------------------------------------------------------------

Shape as_matrix(Shape shape, bool left) {
  if (shape.rank() == 1) left ? shape.insert(0, 1) : shape.push_back(1);
  return shape;
}

/// The columns of a B of the file are the layer's; those of another may hold the batch, and its rows a padded length.
int64_t chunk_of(const NodeContext& c, int64_t k, int64_t n) {
  return c.input(1).is_of_file() ? kernels::sum_chunk(k, n) : kernels::computed_chunk(k);
}

void lower_matmul(LowerContext& c) {
  const Shape a = as_matrix(c.input(0).shape, true), b = as_matrix(c.input(1).shape, false);
  const size_t ra = a.rank(), rb = b.rank();
  const int64_t m = a[ra - 2], k = a[ra - 1], n = b[rb - 1];
  const Shape lead_a(a.dims().first(ra - 2)), lead_b(b.dims().first(rb - 2));
  GemmParams p = plain_product(m, n, k, false);
  if (lead_b.elements() == 1) {
    p.m = lead_a.elements() * m;  // one right side: one tall product
  } else {
    const Shape batch = *broadcast(lead_a, lead_b);
    std::array<Strides, 2> strides{broadcast_strides(lead_a, batch), broadcast_strides(lead_b, batch)};
    for (size_t i = 0; i < batch.rank(); ++i) {
      strides[0][i] *= m * k;
      strides[1][i] *= k * n;
    }
    p.batch = nest_of(make_nest<2>(batch, strides));
  }
  p.chunk = chunk_of(c, k, n);
  c.step(run_product, p, {c.out(0), c.in(0), c.in(1), Ref{}});
}

// ---- Gemm -----------------------------------------------------------------------------------------------------------

Cost gemm_cost(const NodeContext& c) {
  if (c.attr_int("transA", 0) != 0) return Cost::cannot("transA is set");
  if (c.attr_float("alpha", 1) != 1) return Cost::cannot("alpha is not 1");
  if (!c.has_input(2)) return Cost(0);
  const Shape& addend = c.input(2).shape;
  const int64_t n = c.output(0).shape.back();
  const bool row = addend.rank() >= 1 && addend.back() == n && addend.elements() == n;
  if (c.attr_float("beta", 1) != 1 || !row) return Cost::cannot("C is not a row that is added as it is");
  return Cost(0);
}

void lower_gemm(LowerContext& c) {
  const Shape& a = c.input(0).shape;
  GemmParams p = plain_product(a[0], c.output(0).shape.back(), a[1], c.attr_int("transB", 0) != 0);
  p.chunk = chunk_of(c, p.k, p.n);
  c.step(run_product, p, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}});
}

}  // namespace

void launch_product(GemmParams p, std::byte* const* io, const ExecContext& context) {
  if (p.m * p.n * p.batch.n == 0) return;
  p.c = at<float>(io, 0);
  p.a = at<float>(io, 1);
  p.b = at<float>(io, 2);
  p.bias = at<float>(io, 3);
  const auto grid = [&p](int64_t rows, int64_t columns) {
    return Blocks{(p.n + columns - 1) / columns, (p.m + rows - 1) / rows, p.batch.n};
  };
  const Blocks wide = grid(device::kWideTile, device::kWideTile), tiles = grid(device::kTile, device::kTile);
  if (p.m <= device::kSplitRows) {
    launch(context, Kernel::gemm_split, grid(1, device::kSplitColumns), device::kSplitThreads, device::kSplitShared, p);
  } else if (wide.count() >= kManyBlocks && p.n > device::kTile) {
    launch(context, Kernel::gemm_wide, wide, device::kTileThreads, device::tile_shared(device::kWideTile), p);
  } else if (tiles.count() >= kEnoughBlocks) {
    launch(context, Kernel::gemm_tiled, tiles, device::kTileThreads, device::tile_shared(device::kTile), p);
  } else {
    const int slices = slices_of(p.k, p.chunk);
    launch(context, Kernel::gemm_sliced, grid(device::kSliceRows, device::kSliceColumns),
           static_cast<unsigned>(slices) * 32, device::slice_shared(slices), p);
  }
}

GemmParams plain_product(int64_t m, int64_t n, int64_t k, bool transposed) {
  GemmParams p{};
  p.m = m;
  p.n = n;
  p.k = k;
  p.a_row = k;
  p.b_row = transposed ? 1 : n;
  p.b_col = transposed ? k : 1;
  p.batch = nest_of(make_nest<2>({}, {}));
  return p;
}

}  // namespace cuda

void register_cuda_product(OpRegistry& r) {
  using namespace cuda;
  add(r, kInternal, "Linear", lower_linear, linear_cost, Precision::kFloat32);
  add(r, kOnnx, "MatMul", lower_matmul, nullptr, Precision::kFloat32);
  add(r, kOnnx, "Gemm", lower_gemm, gemm_cost, Precision::kFloat32);
}

}  // namespace inferkit
