// C = f(scale A B + bias + residual) with the products of A and B in bf16 and all sums in float. A and B are rounded to
// bf16 (to nearest, ties to even; subnormals become zero), and a product of two bf16 is exact in float. K goes in
// pairs: of each the product of the odd element is added first, then that of the even one, each with one rounding,
// which is what VDPBF16PS does. Sums are cut by kernels/summation.h, in chunks that are even, and a K that is odd ends
// with a zero. So the bits depend on a row, B, bias, residual, K and k_chunk alone, as in gemm/gemm.h, and not on
// whether the processor has that instruction. Without FMA, on the x86 baseline, a product beyond the range of float is
// rounded by itself. The tiles of AMX have a definition of their own: chunks of 512, odd and even products summed apart
// (docs/decisions/074-tiles.md); so on a processor that has them the bits are others, and as independent of the batch.
#pragma once
#include "kernels/cpu/gemm64/gemm64.h"

namespace inferkit {
class IsaFeatures;
}  // namespace inferkit

namespace inferkit::kernels {

using GemmArgsBf16 = GemmArgsOf<BFloat16>;

// As their namesakes for float.
void gemm_bf16(const GemmArgsBf16& args);
void gemm_bf16_parallel(const GemmArgsBf16& args, ThreadPool* pool, int max_threads);
void gemm_bf16_batch(const GemmBatch& batch, const FunctionRef<GemmArgsBf16(int64_t i, int64_t slot)>& operands,
                     ThreadPool* pool, int max_threads);
/// Pairs that packed B takes, of four bytes each.
size_t packed_b_bf16_elements(int64_t k, int64_t n);
void pack_b(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed);
void pack_b_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed);
/// Rows of floats as rows of pairs, each of (k + 1) / 2, for an A that many products read.
void pack_a_bf16(const float* a, int64_t lda, int64_t m, int64_t k, uint32_t* packed);

/// B of the windows of a convolution: element (k, pixel) lies at image[offsets[k] + pixel / width * pitch + pixel %
/// width].
struct WindowPairsArgs {
  const float* image = nullptr;
  const int32_t* offsets = nullptr;
  int64_t k = 0, pixels = 0;
  int64_t width = 1, pitch = 1;
  uint32_t* packed = nullptr;  // as pack_b leaves it
};

/// The chunk of a sum in bf16: that of float, and even.
static inline int64_t chunk_of_pairs(int64_t chunk) { return chunk + (chunk & 1); }

struct GemmBf16Kernels {
  const char* (*compiled_isa)();
  double products_per_nano;  // of gemm with many rows, on one core of a Sapphire Rapids
  void (*gemm)(const GemmArgsBf16& args);
  void (*pack_b)(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed);
  void (*pack_b_transposed)(const float* b, int64_t ldb, int64_t k, int64_t n, uint32_t* packed);
  void (*pack_a)(const float* a, int64_t lda, int64_t m, int64_t k, uint32_t* packed);
  void (*pack_windows)(const WindowPairsArgs& args);
};

const GemmBf16Kernels& gemm_bf16_kernels();  // of the active tier and its features
const GemmBf16Kernels& gemm_bf16_kernels(Isa isa, IsaFeatures features);

template <>
struct GemmOf<BFloat16> {
  static constexpr auto* one = gemm_bf16;
  static constexpr auto* parallel = gemm_bf16_parallel;
  static constexpr auto* batch = gemm_bf16_batch;
  static constexpr auto* packed_elements = packed_b_bf16_elements;
  static int64_t chunk(int64_t of_rule) { return chunk_of_pairs(of_rule); }
};

}  // namespace inferkit::kernels
