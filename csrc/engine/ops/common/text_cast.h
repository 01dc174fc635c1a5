// Casts between numbers and strings.
#pragma once
#include "engine/compile/lower.h"

namespace inferkit {

/// Steps from `in` to `out`, `count` elements, one of them strings, the other neither strings nor of a small type. What
/// is no number is an Error(kInference) of the run.
void lower_to_text(LowerContext& c, Ref in, DType from, Ref out, int64_t count);
void lower_from_text(LowerContext& c, Ref in, Ref out, DType to, int64_t count);

}  // namespace inferkit
