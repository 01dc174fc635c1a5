// The checks that a tensor passes on its way into a model. Pure: they see a name, what the model says and what came.
#pragma once
#include <cstdint>
#include <string_view>

#include "base/dtype.h"
#include "base/scan.h"
#include "base/shape.h"

namespace inferkit {

/// Whether a check is made: of what the model gives no meaning to, of all, or of nothing.
enum class CheckMode : uint8_t { kByModel, kOn, kOff };

/// What a caller asks to be checked of an input beyond dtype and shape, which always hold.
struct InputChecks {
  CheckMode finite = CheckMode::kByModel;     // no NaN, no infinity
  CheckMode non_empty = CheckMode::kByModel;  // no dimension is 0
  int64_t min_length = 0;  // bounds on every free dimension but the batch; a max_length of 0 means none
  int64_t max_length = 0;
};

/// Axes of an input, a bit for each.
using Axes = uint8_t;
static_assert(Shape::kMaxRank <= 8 * sizeof(Axes));
inline constexpr Axes kAllAxes = static_cast<Axes>(~0);

/// What of that a model gives a meaning to.
struct InputSense {
  NonFinite non_finite = NonFinite::kNone;  // NaN is a missing value, infinity masks or is asked for
  Axes empty_axes = 0;                      // those that may be 0, as a decoder's past is before its first step
  bool operator==(const InputSense&) const = default;
};

/// The checks that one input passes in the end.
struct PortChecks {
  NonFinite allowed = NonFinite::kNone;
  Axes empty_axes = 0;  // that may be 0
  int64_t min_length = 0;
  int64_t max_length = 0;
  bool operator==(const PortChecks&) const = default;
};

PortChecks resolve(const InputChecks& asked, const InputSense& sense);

/// How a tensor relates to a model's input: as it is, or one row of it, the batch axis left out.
enum class BatchAxis : uint8_t { kPresent, kAbsent };

/// Whether a tensor of this shape may hold one row, which may then come alone.
bool may_be_one_row(const Shape& spec);

/// Tells the two apart by the number of dimensions. Throws Error(kValidation, kShape) where it is neither.
BatchAxis batch_axis_of(std::string_view name, const Shape& spec, const Shape& given);

/// Checks dtype, rank, dimensions, emptiness and length bounds; reads no element. With BatchAxis::kAbsent, `given` is
/// compared with spec[1:]. Throws Error(kValidation) with the reason dtype, shape, empty or too_large; the message
/// names the input, what was expected, what came, and what to do.
void check_input(std::string_view name, DType spec_dtype, const Shape& spec_shape, DType dtype, const Shape& shape,
                 const PortChecks& checks, BatchAxis axis = BatchAxis::kPresent);

/// Copies `given` row-major to `target` and checks its values in the same pass. Throws Error(kValidation, kNonFinite),
/// which names the first bad element, and how that is allowed for `input`, of which `given` may be a part.
void copy_input(std::string_view name, std::string_view input, const StridedView& given, void* target,
                const PortChecks& checks);
inline void copy_input(std::string_view name, const StridedView& given, void* target, const PortChecks& checks) {
  copy_input(name, name, given, target, checks);
}

/// The same check where the values are used in place.
void scan_input(std::string_view name, const StridedView& given, const PortChecks& checks);

}  // namespace inferkit
