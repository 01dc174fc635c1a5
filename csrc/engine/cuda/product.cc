// Matrix products: Linear, MatMul, Gemm. The chunks of K are those of engine/ops/linear.cc, so the bits are, too.
#include "engine/cuda/product.h"

#include "engine/cuda/functions.h"
#include "engine/cuda/halves.h"
#include "engine/cuda/launch.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

using device::GemmParams;
using device::HalfGemmParams;

/// Where C is an answer that the host polls for, the product writes it as words.
void take_words(GemmParams& p, const ExecContext& context) {
  const auto bytes = static_cast<size_t>(p.m * p.n * p.batch.n) * sizeof(float);
  if (const auto answer = context.queue->take_answer(p.c, bytes)) {
    p.words = answer->words;
    p.run = answer->run;
  }
}

/// Strips of as many rows as leave enough of them: B is read once for each, but a multiprocessor without one is idle.
struct Strips {
  Kernel kernel;
  int64_t rows;
};
Strips strips_for(int64_t m, int64_t columns) {
  constexpr int64_t kEnoughStrips = 64;
  const auto enough = [&](int64_t rows) { return (m + rows - 1) / rows * columns >= kEnoughStrips; };
  if (m == 1) return {Kernel::gemm_strips_1, 1};
  if (m > 8 && enough(16)) return {Kernel::gemm_strips_16, 16};
  if (m > 4 && enough(8)) return {Kernel::gemm_strips_8, 8};
  return {Kernel::gemm_strips_4, 4};
}

/// io: c, a, b, bias.
void run_product(const void* params, std::byte* const* io, const ExecContext& context) {
  launch_product(*static_cast<const GemmParams*>(params), io, context);
}

/// io: c, a, b or its pairs, bias.
template <Precision kIn>
void run_half_product(const void* params, std::byte* const* io, const ExecContext& context) {
  auto h = *static_cast<const HalfGemmParams*>(params);
  GemmParams& p = h.of;
  if (p.m * p.n * p.batch.n == 0) return;
  constexpr bool kBf16 = kIn == Precision::kBf16;
  p.c = at<float>(io, 0);
  p.a = at<float>(io, 1);
  if (h.pairs_row != 0) {
    h.pairs = at<uint32_t>(io, 2);
  } else {
    p.b = at<float>(io, 2);
  }
  p.bias = at<float>(io, 3);
  take_words(p, context);
  const auto grid = [&p](int64_t rows, int64_t columns) {
    return Blocks{(p.n + columns - 1) / columns, (p.m + rows - 1) / rows, p.batch.n};
  };
  const Blocks wide = grid(device::kWideTile, device::kWideTile), tiles = grid(device::kTile, device::kTile);
  if (wide.count() >= kManyBlocks && p.n > device::kTile) {
    launch(context, kBf16 ? Kernel::gemm_bf16_wide : Kernel::gemm_f16_wide, wide, device::kTileThreads,
           device::kHalfTileShared<device::kWideTile>, h);
  } else if (tiles.count() >= kEnoughBlocks) {
    launch(context, kBf16 ? Kernel::gemm_bf16_tiled : Kernel::gemm_f16_tiled, tiles, device::kTileThreads,
           device::kHalfTileShared<device::kTile>, h);
  } else {
    const int slices = slices_of(p.k, p.chunk);
    launch(context, kBf16 ? Kernel::gemm_bf16_sliced : Kernel::gemm_f16_sliced,
           grid(device::kSliceRows, device::kSliceColumns), static_cast<unsigned>(slices) * 32,
           device::half_slice_shared(slices), h);
  }
}

/// Input 1, which is constant, as pairs: `count` matrices of [k, n] whose rows and columns lie row and column apart.
template <Precision kTo>
Ref pairs_of(LowerContext& c, int64_t count, int64_t k, int64_t n, int64_t row, int64_t column, int64_t pairs_row) {
  const Tensor& b = c.known_value(1);
  const int64_t words = (k + 1) / 2 * pairs_row;
  const Packing packing{
      cat("cuda-pairs-", count, "-", k, "-", n, "-", row, "-", column), half_dtype(kTo), 2 * count * words, {}};
  return c.packed({&b}, packing, [&](void* to) {
    auto* out = static_cast<uint32_t*>(to);
    for (int64_t z = 0; z < count; ++z) {
      const float* const from = b.as<float>() + z * k * n;
      for (int64_t pair = 0; pair < (k + 1) / 2; ++pair, out += pairs_row) {
        const float* const low = from + 2 * pair * row;
        const bool both = 2 * pair + 1 < k;
        for (int64_t j = 0; j < n; ++j) {
          out[j] = pair_of<kTo>(low[j * column], both ? low[row + j * column] : 0.0f);
        }
        std::fill(out + n, out + pairs_row, 0u);
      }
    }
  });
}

/// Adds the step of a product that is all set but for its precision; io as for run_product.
template <Precision kIn>
void product_step(LowerContext& c, GemmParams p, Ref bias) {
  if constexpr (!rounds_operands(kIn)) {
    c.step(run_product, p, {c.out(0), c.in(0), c.in(1), bias});
  } else {
    p.chunk = device::half_chunk(p.chunk);
    HalfGemmParams h{};
    h.of = p;
    Ref b;
    if (const int64_t matrix = p.k * p.n; c.input(1).constant && matrix > 0) {
      h.pairs_row = (p.n + 3) / 4 * 4;
      b = pairs_of<kIn>(c, c.input(1).shape.elements() / matrix, p.k, p.n, p.b_row, p.b_col, h.pairs_row);
      for (int64_t& stride : h.of.batch.strides[1]) stride = stride / matrix * ((p.k + 1) / 2 * h.pairs_row);
    } else {
      b = c.in(1);
    }
    c.step(run_half_product<kIn>, h, {c.out(0), c.in(0), b, bias});
  }
}

// ---- Linear ---------------------------------------------------------------------------------------------------------

Cost linear_cost(const NodeContext& c) {
  return fused_function(c) ? Cost(0) : Cost::cannot("CUDA has not the activation that is fused into it");
}

template <Precision kIn>
void lower_linear(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  GemmParams p =
      plain_product(x.elements(0, x.rank() - 1), c.output(0).shape.back(), x.back(), c.attr_int("transB", 0) != 0);
  p.chunk = kernels::sum_chunk(p.k, p.n);
  const Function f = *fused_function(c);
  p.act = f.op;
  p.alpha = f.alpha;
  p.beta = f.beta;
  product_step<kIn>(c, p, c.has_input(2) ? c.in(2) : Ref{});
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

template <Precision kIn>
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
  product_step<kIn>(c, p, Ref{});
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

template <Precision kIn>
void lower_gemm(LowerContext& c) {
  const Shape& a = c.input(0).shape;
  GemmParams p = plain_product(a[0], c.output(0).shape.back(), a[1], c.attr_int("transB", 0) != 0);
  p.chunk = chunk_of(c, p.k, p.n);
  product_step<kIn>(c, p, c.has_input(2) ? c.in(2) : Ref{});
}

template <Precision kIn>
void add_half_products(OpRegistry& r) {
  add_half(r, kInternal, "Linear", lower_linear<kIn>, linear_cost, kIn);
  add_half(r, kOnnx, "MatMul", lower_matmul<kIn>, nullptr, kIn);
  add_half(r, kOnnx, "Gemm", lower_gemm<kIn>, gemm_cost, kIn);
}

}  // namespace

void launch_product(GemmParams p, std::byte* const* io, const ExecContext& context) {
  if (p.m * p.n * p.batch.n == 0) return;
  p.c = at<float>(io, 0);
  p.a = at<float>(io, 1);
  p.b = at<float>(io, 2);
  p.bias = at<float>(io, 3);
  take_words(p, context);
  const auto grid = [&p](int64_t rows, int64_t columns) {
    return Blocks{(p.n + columns - 1) / columns, (p.m + rows - 1) / rows, p.batch.n};
  };
  const Blocks wide = grid(device::kWideTile, device::kWideTile), tiles = grid(device::kTile, device::kTile);
  if (wide.count() >= kManyBlocks && p.n > device::kTile && p.m > device::kTile) {
    launch(context, Kernel::gemm_wide, wide, device::kTileThreads, device::tile_shared(device::kWideTile), p);
  } else if (tiles.count() >= kEnoughBlocks && p.m > device::kTile / 4) {
    launch(context, Kernel::gemm_tiled, tiles, device::kTileThreads, device::tile_shared(device::kTile), p);
  } else {
    const int slices = slices_of(p.k, p.chunk);
    const Strips strips = strips_for(p.m, grid(p.m, device::kStripColumns).count());
    launch(context, strips.kernel, grid(strips.rows, device::kStripColumns), static_cast<unsigned>(slices) * 32,
           device::strip_shared(slices, static_cast<int>(strips.rows)), p);
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
  constexpr Precision kFloat32 = Precision::kFloat32;
  add(r, kInternal, "Linear", lower_linear<kFloat32>, linear_cost, kFloat32);
  add(r, kOnnx, "MatMul", lower_matmul<kFloat32>, nullptr, kFloat32);
  add(r, kOnnx, "Gemm", lower_gemm<kFloat32>, gemm_cost, kFloat32);
  add_half_products<Precision::kBf16>(r);
  add_half_products<Precision::kFloat16>(r);
}

}  // namespace inferkit
