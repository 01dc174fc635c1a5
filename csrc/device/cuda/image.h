// The kernels of csrc/kernels/cuda as the driver loads them: a fatbin that nvcc made when this was built.
#pragma once
#include <cstddef>

namespace inferkit {

/// Null where this was built without nvcc.
extern const void* const cuda_image;
/// What the image is for, such as "sm_80 sm_90 sm_100 ptx"; "" where there is none.
extern const char* const cuda_targets;

}  // namespace inferkit
