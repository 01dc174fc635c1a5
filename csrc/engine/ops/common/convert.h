// Operands in the type that an operator computes in, and its results back in the type of the model.
#pragma once
#include "engine/compile/lower.h"

namespace inferkit {

/// Adds a step that converts `count` elements as the operator Cast does, with one rounding; neither type is that of
/// strings or one that base/small_types.h has.
void lower_convert(LowerContext& c, Ref in, DType from, Ref out, DType to, int64_t count);

/// `in` as `to`: itself where it is of that type already, else scratch that a step fills.
Ref converted(LowerContext& c, Ref in, DType from, DType to, int64_t count);

/// Where an operator that computes in `type` may write output `o`: the output itself, or scratch that end_output
/// converts into it. Invalid where nobody reads the output.
Ref begin_output(LowerContext& c, size_t o, DType type);
void end_output(LowerContext& c, size_t o, Ref computed, DType type);

/// float for the half types, else the type itself.
inline DType compute_type(DType t) { return t == DType::kF16 || t == DType::kBF16 ? DType::kF32 : t; }

}  // namespace inferkit
