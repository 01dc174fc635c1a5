// Instruction-set tiers: which this machine has, and which one the process uses.
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
/// The tiers that this build holds code for and this machine can run, lowest first.
std::vector<Isa> available_isas();

/// The tier in use: the one that INFERKIT_ISA names, else the highest available. Chosen once, at the first call.
/// Throws std::invalid_argument where INFERKIT_ISA names an unknown tier or one that this machine lacks.
Isa active_isa();
/// Why active_isa() is what it is, in a sentence.
std::string isa_reason();

}  // namespace inferkit
