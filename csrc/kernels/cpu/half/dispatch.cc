#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/half/half.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa) \
  namespace tier {                  \
  extern const HalfKernels kHalf;   \
  }
#include "kernels/cpu/half/kernels.inc"
#undef INFERKIT_KERNELS

const HalfKernels& half_kernels(Isa isa) {
  static constexpr TierRow<HalfKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kHalf},
#include "kernels/cpu/half/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const HalfKernels& half_kernels() {
  static const HalfKernels& active = half_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
