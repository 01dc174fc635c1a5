#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/igemm/igemm.h"

namespace inferkit::kernels {

#define INFERKIT_KERNELS(tier, isa) \
  namespace tier {                  \
  extern const IgemmKernels kIgemm; \
  }
#include "kernels/cpu/igemm/kernels.inc"
#if defined(__x86_64__)
INFERKIT_KERNELS(vnni, kAvx512)
#endif
#undef INFERKIT_KERNELS

const IgemmKernels& igemm_kernels(Isa isa) {
  static constexpr TierRow<IgemmKernels> kRows[] = {
#define INFERKIT_KERNELS(tier, isa) {Isa::isa, &tier::kIgemm},
#include "kernels/cpu/igemm/kernels.inc"
#undef INFERKIT_KERNELS
  };
  return table_of(kRows, isa);
}

const IgemmKernels* igemm_vnni_kernels() {
#if defined(__x86_64__)
  const auto isas = available_isas();
  if (isas.back() == Isa::kAvx512 && __builtin_cpu_supports("avx512vnni")) return &vnni::kIgemm;
#endif
  return nullptr;
}

const IgemmKernels& igemm_kernels() {
  static const IgemmKernels& active = [&]() -> const IgemmKernels& {
    const IgemmKernels* vnni = active_isa() == Isa::kAvx512 ? igemm_vnni_kernels() : nullptr;
    return vnni ? *vnni : igemm_kernels(active_isa());
  }();
  return active;
}

}  // namespace inferkit::kernels
