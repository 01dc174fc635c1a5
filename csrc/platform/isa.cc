#include "platform/isa.h"

#include <array>
#include <cstdlib>
#include <stdexcept>

#include "base/error.h"
#include "base/immortal.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace inferkit {
namespace {

constexpr std::array<std::string_view, 3> kNames = {"baseline", "avx2", "avx512"};

Isa detect() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return Isa::kBaseline;
  const bool osxsave = c & (1u << 27), fma = c & (1u << 12), f16c = c & (1u << 29), avx = c & (1u << 28);
  if (!osxsave || !avx) return Isa::kBaseline;
  unsigned xcr_low = 0, xcr_high = 0;
  __asm__("xgetbv" : "=a"(xcr_low), "=d"(xcr_high) : "c"(0));
  if ((xcr_low & 0x6) != 0x6) return Isa::kBaseline;  // the system does not save YMM registers
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return Isa::kBaseline;
  const bool avx2 = b & (1u << 5), bmi1 = b & (1u << 3), bmi2 = b & (1u << 8);
  if (!(avx2 && fma && f16c && bmi1 && bmi2)) return Isa::kBaseline;
  const bool f = b & (1u << 16), dq = b & (1u << 17), bw = b & (1u << 30), vl = b & (1u << 31);
  if (!(f && dq && bw && vl) || (xcr_low & 0xe6) != 0xe6) return Isa::kAvx2;  // opmask and ZMM state
  return Isa::kAvx512;
#else
  return Isa::kBaseline;
#endif
}

struct Choice {
  Isa isa;
  std::string reason;
};

Choice choose() {
  const Isa best = detect();
  const char* wish = std::getenv("INFERKIT_ISA");
  if (!wish || !*wish) return {best, cat("the highest tier that this machine has is ", isa_name(best))};
  const auto isa = isa_from_name(wish);
  if (!isa) {
    throw std::invalid_argument(cat("INFERKIT_ISA='", wish, "' is not a tier; use one of baseline, avx2, avx512"));
  }
  if (*isa > best) {
    throw std::invalid_argument(cat("INFERKIT_ISA='", wish,
                                    "' asks for a tier that this machine or build lacks; the highest here is ",
                                    isa_name(best)));
  }
  return {*isa, cat("INFERKIT_ISA=", wish, " (the highest tier that this machine has is ", isa_name(best), ")")};
}

const Choice& choice() {
  static const Choice& made = immortal(choose());
  return made;
}

}  // namespace

std::string_view isa_name(Isa isa) { return kNames[static_cast<size_t>(isa)]; }

std::optional<Isa> isa_from_name(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Isa>(i);
  }
  return std::nullopt;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> out;
  for (int i = 0; i <= static_cast<int>(detect()); ++i) out.push_back(static_cast<Isa>(i));
  return out;
}

Isa active_isa() { return choice().isa; }
std::string isa_reason() { return choice().reason; }

}  // namespace inferkit
