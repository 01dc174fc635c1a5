#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/affine/affine.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa)   \
  namespace tier {                    \
  extern const AffineKernels kAffine; \
  }
#include "kernels/cpu/affine/kernels.inc"
#undef INFERKIT_KERNELS

const AffineKernels& affine_kernels(Isa isa) {
  static constexpr TierRow<AffineKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kAffine},
#include "kernels/cpu/affine/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const AffineKernels& affine_kernels() {
  static const AffineKernels& active = affine_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
