#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/binary/binary.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa)   \
  namespace tier {                    \
  extern const BinaryKernels kBinary; \
  }
#include "kernels/cpu/binary/kernels.inc"
#undef INFERKIT_KERNELS

const BinaryKernels& binary_kernels(Isa isa) {
  static constexpr TierRow<BinaryKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kBinary},
#include "kernels/cpu/binary/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const BinaryKernels& binary_kernels() {
  static const BinaryKernels& active = binary_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
