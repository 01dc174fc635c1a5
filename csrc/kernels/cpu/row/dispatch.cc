#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/row/row.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa) \
  namespace tier {                  \
  extern const RowKernels kRow;     \
  }
#include "kernels/cpu/row/kernels.inc"
#undef INFERKIT_KERNELS

const RowKernels& row_kernels(Isa isa) {
  static constexpr TierRow<RowKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kRow},
#include "kernels/cpu/row/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const RowKernels& row_kernels() {
  static const RowKernels& active = row_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
