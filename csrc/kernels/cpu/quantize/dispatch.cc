#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/quantize/quantize.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa)       \
  namespace tier {                        \
  extern const QuantizeKernels kQuantize; \
  }
#include "kernels/cpu/quantize/kernels.inc"
#undef INFERKIT_KERNELS

const QuantizeKernels& quantize_kernels(Isa isa) {
  static constexpr TierRow<QuantizeKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kQuantize},
#include "kernels/cpu/quantize/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const QuantizeKernels& quantize_kernels() {
  static const QuantizeKernels& active = quantize_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
