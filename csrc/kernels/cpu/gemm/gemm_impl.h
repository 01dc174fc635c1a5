// GEMM of float of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/gemm/pack_impl.h"
#include "kernels/cpu/gemm/product_impl.h"
#include "kernels/cpu/gemm/windows_impl.h"

namespace inferkit::kernels::INFERKIT_TIER {

extern const GemmKernels kGemm;
const GemmKernels kGemm = {compiled_isa, gemm<float>, gemm_windows, pack_b, pack_b_transposed};

}  // namespace inferkit::kernels::INFERKIT_TIER
