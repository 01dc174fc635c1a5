// GEMM of double of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/gemm/product_impl.h"
#include "kernels/cpu/gemm64/gemm64.h"

namespace inferkit::kernels::INFERKIT_TIER {

namespace {

void gemm64(const GemmArgs64& args) {
  GemmArgs64 g = args;
  if (g.k_chunk == 0) g.k_chunk = chunk_of_doubles(sum_chunk(g.k, g.n));
  gemm(g);
}

}  // namespace

extern const Gemm64Kernels kGemm64;
const Gemm64Kernels kGemm64 = {compiled_isa, gemm64};

}  // namespace inferkit::kernels::INFERKIT_TIER
