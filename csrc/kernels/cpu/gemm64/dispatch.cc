#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/gemm64/gemm64.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa)   \
  namespace tier {                    \
  extern const Gemm64Kernels kGemm64; \
  }
#include "kernels/cpu/gemm64/kernels.inc"
#undef INFERKIT_KERNELS

const Gemm64Kernels& gemm64_kernels(Isa isa) {
  static constexpr TierRow<Gemm64Kernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kGemm64},
#include "kernels/cpu/gemm64/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const Gemm64Kernels& gemm64_kernels() {
  static const Gemm64Kernels& active = gemm64_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
