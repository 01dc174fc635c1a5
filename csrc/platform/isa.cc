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
constexpr std::array<std::string_view, kIsaFeatures> kFeatureNames = {"vnni", "bf16", "amx-int8", "amx-bf16"};

struct Machine {
  Isa isa = Isa::kBaseline;
  IsaFeatures features;  // of the highest tier
};

#if defined(__x86_64__)
bool bit(unsigned word, int at) { return (word >> at & 1) != 0; }

Machine detect() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return {};
  const bool fma = bit(c, 12), osxsave = bit(c, 27), avx = bit(c, 28), f16c = bit(c, 29);
  if (!osxsave || !avx) return {};
  unsigned saved = 0, saved_high = 0;  // the registers that the system saves
  __asm__("xgetbv" : "=a"(saved), "=d"(saved_high) : "c"(0));
  constexpr unsigned kYmm = 0x6, kZmm = 0xe6, kTiles = 0x6'0000;
  if ((saved & kYmm) != kYmm || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return {};
  const bool avx2 = bit(b, 5), bmi1 = bit(b, 3), bmi2 = bit(b, 8);
  if (!(avx2 && fma && f16c && bmi1 && bmi2)) return {};
  const bool f = bit(b, 16), dq = bit(b, 17), bw = bit(b, 30), vl = bit(b, 31);
  if (!(f && dq && bw && vl) || (saved & kZmm) != kZmm) return {Isa::kAvx2, {}};
  Machine machine{Isa::kAvx512, {}};
  const auto has = [&](IsaFeature feature, bool there) {
    if (there) machine.features = machine.features | feature;
  };
  has(IsaFeature::kVnni, bit(c, 11));
  const bool tiles = bit(d, 24) && (saved & kTiles) == kTiles;
  has(IsaFeature::kAmxBf16, tiles && bit(d, 22));
  has(IsaFeature::kAmxInt8, tiles && bit(d, 25));
  has(IsaFeature::kBf16, a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && bit(a, 5));
  return machine;
}
#else
Machine detect() { return {}; }
#endif

const Machine& machine() {
  static const Machine& found = immortal(detect());
  return found;
}

std::optional<IsaFeature> feature_from_name(std::string_view name) {
  for (size_t i = 0; i < kFeatureNames.size(); ++i) {
    if (kFeatureNames[i] == name) return static_cast<IsaFeature>(i);
  }
  return std::nullopt;
}

struct Choice {
  Isa isa;
  IsaFeatures features;
  std::string reason;
};

Choice choose() {
  const Isa best = machine().isa;
  const char* wish = std::getenv("INFERKIT_ISA");
  if (!wish || !*wish) {
    return {best, machine().features, cat("the highest tier that this machine has is ", isa_name(best))};
  }
  std::string_view rest = wish;
  const auto next = [&] {
    const size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    rest = comma == rest.npos ? std::string_view() : rest.substr(comma + 1);
    return part;
  };
  const auto isa = isa_from_name(next());
  if (!isa) {
    throw std::invalid_argument(cat("INFERKIT_ISA='", wish, "' is not a tier; use one of baseline, avx2, avx512"));
  }
  if (*isa > best) {
    throw std::invalid_argument(cat("INFERKIT_ISA='", wish,
                                    "' asks for a tier that this machine or build lacks; the highest here is ",
                                    isa_name(best)));
  }
  IsaFeatures features = available_features(*isa);
  while (!rest.empty()) {
    const std::string_view part = next();
    const auto feature = part.starts_with('-') ? feature_from_name(part.substr(1)) : std::nullopt;
    if (!feature) {
      std::string known;
      for (const std::string_view name : kFeatureNames) known += cat(known.empty() ? "-" : ", -", name);
      throw std::invalid_argument(cat("INFERKIT_ISA='", wish, "': after the tier come features to do without, of ",
                                      known, "; got '", part, "'"));
    }
    features = features.without(*feature);
  }
  return {*isa, features,
          cat("INFERKIT_ISA=", wish, " (the highest tier that this machine has is ", isa_name(best), ")")};
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

std::string_view feature_name(IsaFeature feature) { return kFeatureNames[static_cast<size_t>(feature)]; }

std::vector<std::string_view> feature_names(IsaFeatures features) {
  std::vector<std::string_view> out;
  for (int i = 0; i < kIsaFeatures; ++i) {
    const auto feature = static_cast<IsaFeature>(i);
    if (features.covers(feature)) out.push_back(feature_name(feature));
  }
  return out;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> out;
  for (int i = 0; i <= static_cast<int>(machine().isa); ++i) out.push_back(static_cast<Isa>(i));
  return out;
}

IsaFeatures available_features(Isa isa) { return isa >= Isa::kAvx512 ? machine().features : IsaFeatures(); }

Isa active_isa() { return choice().isa; }
IsaFeatures active_features() { return choice().features; }
std::string isa_reason() { return choice().reason; }

}  // namespace inferkit
