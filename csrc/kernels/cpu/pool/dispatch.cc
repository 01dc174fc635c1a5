#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/pool/pool.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa) \
  namespace tier {                  \
  extern const PoolKernels kPool;   \
  }
#include "kernels/cpu/pool/kernels.inc"
#undef INFERKIT_KERNELS

const PoolKernels& pool_kernels(Isa isa) {
  static constexpr TierRow<PoolKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kPool},
#include "kernels/cpu/pool/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const PoolKernels& pool_kernels() {
  static const PoolKernels& active = pool_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
