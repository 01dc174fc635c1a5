// C = f(scale A B + bias + residual) in float, and the same without f in double. The bits of an element of C depend
// only on its row of A, B, the scale, its bias and residual, K and the layer's k_chunk: never on M, the row's place,
// the tile, the thread count, or AVX2 against AVX-512.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/vmath/vmath.h"
#include "kernels/summation.h"

namespace inferkit {
struct BFloat16;
class ThreadPool;
template <class Signature>
class FunctionRef;
}  // namespace inferkit

namespace inferkit::kernels {

/// What a product in T reads and writes. Of bf16 (gemm_bf16/gemm_bf16.h) A and C are floats, and B holds pairs: for
/// b_k_stride below, an element is two neighbours of K.
template <class T>
struct Operands {
  using In = T;
  using Packed = T;
  static constexpr int64_t kPerPacked = 1;
};
template <>
struct Operands<BFloat16> {
  using In = float;
  using Packed = uint32_t;
  static constexpr int64_t kPerPacked = 2;
};

/// A panel of B is 64 bytes wide.
template <class T>
inline constexpr int64_t kPanelColumnsOf = 64 / sizeof(typename Operands<T>::Packed);
inline constexpr int64_t kPanelColumns = kPanelColumnsOf<float>;

enum class BiasKind : uint8_t { kNone, kPerColumn, kPerRow };

/// B is a row of panels of 16 columns (of double: 8, and so on below): element (k, 16 p + j) lies at b[p *
/// b_panel_stride + k * b_k_stride + j]. Packed: b_k_stride = 16, b_panel_stride = 16 k (see pack_b). A row-major B
/// whose n is a multiple of 16 is read in place with b_k_stride = ldb, b_panel_stride = 16. All 16 columns of the last
/// panel are read, so they must exist. Strides are in elements. Nothing beyond the m x n elements of C is written, and
/// C needs no alignment.
template <class T>
struct GemmArgsOf {
  using Element = typename Operands<T>::In;
  using Packed = typename Operands<T>::Packed;
  int64_t m = 0, n = 0, k = 0;
  const Element* a = nullptr;  // row-major
  int64_t lda = 0;
  bool a_is_pairs = false;  // in bf16 alone: A holds what pack_a_bf16 wrote, and lda counts pairs
  const Packed* b = nullptr;
  int64_t b_k_stride = kPanelColumnsOf<T>;
  int64_t b_panel_stride = 0;
  Element* c = nullptr;  // row-major; may be `residual`, must not overlap a or b
  int64_t ldc = 0;
  const Element* bias = nullptr;  // n values per column, or m per row
  BiasKind bias_kind = BiasKind::kNone;
  float scale = 1;                    // of the whole sum
  const Element* residual = nullptr;  // added before the activation; overlaps C only by being C
  int64_t ldr = 0;
  Unary act = Unary::kIdentity;  // the identity, in double
  float act_alpha = 0, act_beta = 0;
  /// K is summed in chunks of this length (kernels/summation.h); 0 takes sum_chunk(k, n). A caller that computes one
  /// layer in several calls with different n (column splits, a pixel count that grows with the batch) sets it to a
  /// constant of the layer.
  int64_t k_chunk = 0;
};
using GemmArgs = GemmArgsOf<float>;
using GemmArgs64 = GemmArgsOf<double>;

/// On one thread, with the active tier. No allocation.
void gemm_f32(const GemmArgs& args);
/// The same bits, on up to max_threads threads of `pool` (null: one thread); splits only where each thread gets enough.
void gemm_f32_parallel(const GemmArgs& args, ThreadPool* pool, int max_threads);

/// Products of one shape: m, n and k are those of each.
struct GemmBatch {
  static constexpr int kAnySlots = 1 << 16;  // `operands` writes nothing
  int64_t count = 0, m = 0, n = 0, k = 0;
  /// How many calls of `operands` may be under way at once: those with the same slot never are, so that each may pack B
  /// into scratch of its own. Where a product is shared by threads, each part of it asks for itself.
  int slots = kAnySlots;
  bool packs = false;  // operands is expensive: ask once per product
};
/// Computes them all; operands(i, slot) gives the arguments of number i. The bits are those of gemm_f32 one by one.
/// Threads share the products, and the rows or columns of each where there are few.
void gemm_f32_batch(const GemmBatch& batch, const FunctionRef<GemmArgs(int64_t i, int64_t slot)>& operands,
                    ThreadPool* pool, int max_threads);

/// Floats that packed B takes; give it 64-byte aligned memory.
size_t packed_b_elements(int64_t k, int64_t n);
/// From row-major [k, n] with row stride ldb. Columns past n become zeros.
void pack_b(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed);
/// From row-major [n, k] with row stride ldb (ONNX Gemm's transB, QK^T).
void pack_b_transposed(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed);
/// Sets b, b_k_stride and b_panel_stride for a B that pack_b packed; args.k must be set.
template <class T>
void use_packed_b(GemmArgsOf<T>& args, const typename GemmArgsOf<T>::Packed* packed) {
  constexpr int64_t kPer = Operands<T>::kPerPacked;
  args.b = packed;
  args.b_k_stride = kPanelColumnsOf<T>;
  args.b_panel_stride = (args.k + kPer - 1) / kPer * kPanelColumnsOf<T>;
}

/// C = f(A B + bias) where B is windows of images, read in place: element (k, n) lies at b[offsets[k] + n]. The n are
/// places of a grid of rows `pitch` apart of which the first `width` columns are wanted: place r * pitch + j goes to
/// c[r * width + j] of its row of C. The bits are those of the same product with B packed. 15 elements past the last
/// place of each k are read and must exist.
struct WindowGemmArgs {
  int64_t m = 0, n = 0, k = 0;  // n < 2^31
  const float* a = nullptr;     // row-major
  int64_t lda = 0;
  const float* b = nullptr;
  const int32_t* offsets = nullptr;
  int64_t pitch = 1, width = 1;
  float* c = nullptr;
  int64_t ldc = 0;
  const float* bias = nullptr;  // m values, or none
  bool rectify = false;         // ReLU at the end
  int64_t k_chunk = 1;          // as in GemmArgs, but not 0
};

struct GemmKernels {
  const char* (*compiled_isa)();
  void (*gemm)(const GemmArgs& args);
  void (*gemm_windows)(const WindowGemmArgs& args);
  void (*pack_b)(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed);
  void (*pack_b_transposed)(const float* b, int64_t ldb, int64_t k, int64_t n, float* packed);
};

const GemmKernels& gemm_kernels();  // of the active tier
const GemmKernels& gemm_kernels(Isa isa);

}  // namespace inferkit::kernels
