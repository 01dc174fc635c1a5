// The checks that a tensor passes on its way into a model. Pure: they see a name, what the model says and what came.
#pragma once
#include <cstdint>
#include <string_view>

#include "base/dtype.h"
#include "base/scan.h"
#include "base/shape.h"

namespace inferkit {

/// Which checks an input passes beyond dtype and shape, which always hold.
struct InputChecks {
  bool finite = true;      // no NaN, no infinity
  bool non_empty = true;   // no dimension is 0
  int64_t min_length = 0;  // bounds on every free dimension but the batch; a max_length of 0 means none
  int64_t max_length = 0;
};

/// How a tensor relates to a model's input: as it is, or one row of it, the batch axis left out.
enum class BatchAxis : uint8_t { kPresent, kAbsent };

/// Tells the two apart by the number of dimensions. Throws Error(kValidation, kShape) where it is neither.
BatchAxis batch_axis_of(std::string_view name, const Shape& spec, const Shape& given);

/// Checks dtype, rank, dimensions, emptiness and length bounds; reads no element. With BatchAxis::kAbsent, `given` is
/// compared with spec[1:]. Throws Error(kValidation) with the reason dtype, shape, empty or too_large; the message
/// names the input, what was expected, what came, and what to do.
void check_input(std::string_view name, DType spec_dtype, const Shape& spec_shape, DType dtype, const Shape& shape,
                 const InputChecks& checks, BatchAxis axis = BatchAxis::kPresent);

/// Copies `given` row-major to `target` and checks its values in the same pass. Throws Error(kValidation, kNonFinite),
/// which names the first bad element.
void copy_input(std::string_view name, const StridedView& given, void* target, const InputChecks& checks);

/// The same check where the values are used in place.
void scan_input(std::string_view name, const StridedView& given, const InputChecks& checks);

}  // namespace inferkit
