// The products of double: those of gemm/gemm.h with panels of 8 columns, and what code that serves both types calls.
#pragma once
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/summation.h"

namespace inferkit::kernels {

// As their namesakes for float.
void gemm_f64(const GemmArgs64& args);
void gemm_f64_parallel(const GemmArgs64& args, ThreadPool* pool, int max_threads);
void gemm_f64_batch(const GemmBatch& batch, const FunctionRef<GemmArgs64(int64_t i, int64_t slot)>& operands,
                    ThreadPool* pool, int max_threads);
size_t packed_b64_elements(int64_t k, int64_t n);
void pack_b(const double* b, int64_t ldb, int64_t k, int64_t n, double* packed);
void pack_b_transposed(const double* b, int64_t ldb, int64_t k, int64_t n, double* packed);

struct Gemm64Kernels {
  const char* (*compiled_isa)();
  void (*gemm)(const GemmArgs64& args);
};

const Gemm64Kernels& gemm64_kernels();  // of the active tier
const Gemm64Kernels& gemm64_kernels(Isa isa);

static inline int64_t chunk_of_doubles(int64_t chunk) { return chunk < kLongestChunk64 ? chunk : kLongestChunk64; }

/// The calls for elements T; chunk() makes of a chunk of the rule that of T.
template <class T>
struct GemmOf;
template <>
struct GemmOf<float> {
  static constexpr auto* one = gemm_f32;
  static constexpr auto* parallel = gemm_f32_parallel;
  static constexpr auto* batch = gemm_f32_batch;
  static constexpr auto* packed_elements = packed_b_elements;
  static int64_t chunk(int64_t of_rule) { return of_rule; }
};
template <>
struct GemmOf<double> {
  static constexpr auto* one = gemm_f64;
  static constexpr auto* parallel = gemm_f64_parallel;
  static constexpr auto* batch = gemm_f64_batch;
  static constexpr auto* packed_elements = packed_b64_elements;
  static int64_t chunk(int64_t of_rule) { return chunk_of_doubles(of_rule); }
};

}  // namespace inferkit::kernels
