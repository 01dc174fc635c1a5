#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/vmath/vmath.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa) \
  namespace tier {                  \
  extern const VmathKernels kVmath; \
  }
#include "kernels/cpu/vmath/kernels.inc"
#undef INFERKIT_KERNELS

const VmathKernels& vmath_kernels(Isa isa) {
  static constexpr TierRow<VmathKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kVmath},
#include "kernels/cpu/vmath/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const VmathKernels& vmath_kernels() {
  static const VmathKernels& active = vmath_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
