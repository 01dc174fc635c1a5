#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/recurrent/recurrent.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa)         \
  namespace tier {                          \
  extern const RecurrentKernels kRecurrent; \
  }
#include "kernels/cpu/recurrent/kernels.inc"
#undef INFERKIT_KERNELS

const RecurrentKernels& recurrent_kernels(Isa isa) {
  static constexpr TierRow<RecurrentKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kRecurrent},
#include "kernels/cpu/recurrent/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const RecurrentKernels& recurrent_kernels() {
  static const RecurrentKernels& active = recurrent_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
