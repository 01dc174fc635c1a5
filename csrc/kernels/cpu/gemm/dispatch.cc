#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/gemm/gemm.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa) \
  namespace tier {                  \
  extern const GemmKernels kGemm;   \
  }
#include "kernels/cpu/gemm/kernels.inc"
#undef INFERKIT_KERNELS

const GemmKernels& gemm_kernels(Isa isa) {
  static constexpr TierRow<GemmKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kGemm},
#include "kernels/cpu/gemm/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const GemmKernels& gemm_kernels() {
  static const GemmKernels& active = gemm_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
