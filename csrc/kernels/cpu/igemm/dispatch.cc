#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/igemm/igemm.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa, needs) \
  namespace tier {                         \
  extern const IgemmKernels kIgemm;        \
  }
#include "kernels/cpu/igemm/kernels.inc"
#undef INFERKIT_KERNELS

const IgemmKernels& igemm_kernels(Isa isa, IsaFeatures features) {
  static constexpr TierRow<IgemmKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa, needs) {Isa::isa, &tier::kIgemm, needs},
#include "kernels/cpu/igemm/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa, features);
}

const IgemmKernels& igemm_kernels() {
  static const IgemmKernels& active = igemm_kernels(active_isa(), active_features());
  return active;
}

}  // namespace inferkit::kernels
