#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/scan/scan.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa) \
  namespace tier {                  \
  extern const ScanKernels kScan;   \
  }
#include "kernels/cpu/scan/kernels.inc"
#undef INFERKIT_KERNELS

const ScanKernels& scan_kernels(Isa isa) {
  static constexpr TierRow<ScanKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kScan},
#include "kernels/cpu/scan/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const ScanKernels& scan_kernels() {
  static const ScanKernels& active = scan_kernels(active_isa());
  return active;
}

}  // namespace inferkit::kernels
