#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/conv/conv.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa) \
  namespace tier {                  \
  extern const ConvKernels kConv;   \
  }
#include "kernels/cpu/conv/kernels.inc"
#undef INFERKIT_KERNELS

const ConvKernels& conv_kernels(Isa isa) {
  static constexpr TierRow<ConvKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kConv},
#include "kernels/cpu/conv/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const ConvKernels& conv_kernels() {
  static const ConvKernels& active = conv_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
