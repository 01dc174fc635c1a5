// From what a caller passes to a strided view of its memory, without a copy.
#pragma once
#include <pybind11/pybind11.h>

#include <string_view>

#include "base/scan.h"

namespace inferkit {

struct ArrayIn {
  StridedView view;
  pybind11::object keep;  // what owns the memory
};

/// Takes a numpy array, anything with __dlpack__ on the CPU, or anything with the buffer protocol. Throws
/// Error(kValidation, kDtype) that names the input where `object` is something else or of a type that no model takes.
/// Needs the GIL.
ArrayIn array_in(pybind11::handle object, std::string_view name);

/// True where the elements lie contiguous and aligned, as a tensor's do.
bool lies_as_tensor(const StridedView& view);
/// True where a run may read every element from where it is. Never of bools: their bytes may be others than 0 and 1,
/// now or, as the memory is the caller's, by the time that they are read.
bool usable_in_place(const StridedView& view);

}  // namespace inferkit
