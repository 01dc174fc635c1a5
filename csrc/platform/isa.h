// Instruction sets: the tiers and features that this machine has, and those that the process uses.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace inferkit {

/// Ordered: a machine that has a tier has all below it. kBaseline is x86-64-v2 on x86 and plain ARMv8 on aarch64.
enum class Isa : uint8_t { kBaseline, kAvx2, kAvx512 };

std::string_view isa_name(Isa isa);
std::optional<Isa> isa_from_name(std::string_view name);

/// What only some machines of a tier have. A kernel that needs features says so in its family's kernels.inc.
enum class IsaFeature : uint8_t { kVnni, kBf16, kAmxInt8, kAmxBf16 };
inline constexpr int kIsaFeatures = 4;

/// A set of them.
class IsaFeatures {
 public:
  constexpr IsaFeatures() = default;
  constexpr IsaFeatures(IsaFeature one) : bits_(1u << static_cast<int>(one)) {}
  constexpr IsaFeatures operator|(IsaFeatures other) const { return IsaFeatures(bits_ | other.bits_); }
  constexpr IsaFeatures without(IsaFeatures other) const { return IsaFeatures(bits_ & ~other.bits_); }
  constexpr bool covers(IsaFeatures other) const { return (other.bits_ & ~bits_) == 0; }
  constexpr bool operator==(const IsaFeatures&) const = default;

 private:
  explicit constexpr IsaFeatures(uint32_t bits) : bits_(bits) {}
  uint32_t bits_ = 0;
};

std::string_view feature_name(IsaFeature feature);
/// Of all of them, in the order of IsaFeature.
std::vector<std::string_view> feature_names(IsaFeatures features);

/// The tiers that this build holds code for and this machine can run, lowest first.
std::vector<Isa> available_isas();
/// Those that this machine has, its system saves the registers of, and which build upon `isa`.
IsaFeatures available_features(Isa isa);

/// What is in use: the tier that INFERKIT_ISA names, else the highest available, and its features but for those that
/// INFERKIT_ISA takes away: "avx512,-vnni". Chosen once, at the first call. Throws std::invalid_argument where
/// INFERKIT_ISA names what is unknown, or a tier that this machine lacks.
Isa active_isa();
IsaFeatures active_features();
/// Why they are what they are, in a sentence.
std::string isa_reason();

}  // namespace inferkit
