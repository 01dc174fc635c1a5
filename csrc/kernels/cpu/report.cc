#include "kernels/cpu/report.h"

#include "kernels/cpu/affine/affine.h"
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/gemm64/gemm64.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "kernels/cpu/half/half.h"
#include "kernels/cpu/igemm/igemm.h"
#include "kernels/cpu/pool/pool.h"
#include "kernels/cpu/quantize/quantize.h"
#include "kernels/cpu/recurrent/recurrent.h"
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit::kernels {

std::vector<FamilyReport> active_kernels() {
  return {
      {"gemm", gemm_kernels().compiled_isa()},           {"vmath", vmath_kernels().compiled_isa()},
      {"binary", binary_kernels().compiled_isa()},       {"row", row_kernels().compiled_isa()},
      {"conv", conv_kernels().compiled_isa()},           {"pool", pool_kernels().compiled_isa()},
      {"affine", affine_kernels().compiled_isa()},       {"recurrent", recurrent_kernels().compiled_isa()},
      {"quantize", quantize_kernels().compiled_isa()},   {"igemm", igemm_kernels().compiled_isa()},
      {"half", half_kernels().compiled_isa()},           {"gemm64", gemm64_kernels().compiled_isa()},
      {"gemm_bf16", gemm_bf16_kernels().compiled_isa()},
  };
}

}  // namespace inferkit::kernels
