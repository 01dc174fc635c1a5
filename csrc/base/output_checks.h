// The checks that one request's answer passes on its way out of a model. Pure.
#pragma once
#include <string_view>

#include "base/error.h"
#include "base/tensor_view.h"

namespace inferkit {

/// Each is optional and looks at one output of one request.
struct OutputChecks {
  bool finite = false;        // no NaN, no infinity
  bool not_all_zero = false;  // at least one element is not zero
  bool shape = false;         // dtype and shape are those that the model declares (a free dimension fits any)
  bool normalized = false;    // along the last axis the values are >= 0 and sum to 1
  double tolerance = 1e-3;    // how far from 1 a sum may be, and how far below 0 a value

  bool any() const { return finite || not_all_zero || shape || normalized; }
};

/// kOk, or kOutput with the reason non_finite, all_zero, shape or not_normalized and a message that names the output.
/// `output` has its batch axis. Integers and bools are neither scanned for NaN nor summed.
Status check_output(std::string_view name, DType spec_dtype, const Shape& spec_shape, const TensorView& output,
                    const OutputChecks& checks);

}  // namespace inferkit
