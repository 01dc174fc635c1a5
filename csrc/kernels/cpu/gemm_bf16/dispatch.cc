#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/gemm_bf16/gemm_bf16.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa, needs) \
  namespace tier {                         \
  extern const GemmBf16Kernels kGemmBf16;  \
  }
#include "kernels/cpu/gemm_bf16/kernels.inc"
#undef INFERKIT_KERNELS

const GemmBf16Kernels& gemm_bf16_kernels(Isa isa, IsaFeatures features) {
  static constexpr TierRow<GemmBf16Kernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa, needs) {Isa::isa, &tier::kGemmBf16, needs},
#include "kernels/cpu/gemm_bf16/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa, features);
}

const GemmBf16Kernels& gemm_bf16_kernels() {
  static const GemmBf16Kernels& active = gemm_bf16_kernels(active_isa(), active_features());
  return active;
}

}  // namespace inferkit::kernels
