// Operands of the types of base/small_types.h in a type that operators compute in, and results back.
#pragma once
#include "base/small_types.h"
#include "engine/compile/lower.h"

namespace inferkit {

/// `in`, of the small type `from`, as carrier_of(from): scratch that a step fills. Invalid where `in` is.
Ref widened_small(LowerContext& c, Ref in, DType from, int64_t count);

struct SmallRounding {
  bool saturate = true;
  PowerRounding power = PowerRounding::kUp;  // to E8M0
};
/// Adds a step that makes `out`, of the small type `to`, from `in` of carrier_of(to). Integers keep their lowest bits.
void lower_narrow_small(LowerContext& c, Ref in, Ref out, DType to, SmallRounding rounding, int64_t count);

}  // namespace inferkit
