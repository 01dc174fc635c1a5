// From what a caller passes to a strided view of its memory, without a copy.
#pragma once
#include <pybind11/pybind11.h>

#include <string_view>

#include "base/scan.h"

namespace inferkit {

/// What an array is to the model, for messages: "input 'x'", "output 'y'", "out['y']".
enum class ArrayRole : uint8_t { kInput, kOutput, kTarget };

/// The numpy array to read `object` by, which keeps its memory: itself, or a view of anything with __dlpack__ on the
/// CPU, the buffer protocol or __array__, as pandas has. May run any Python. Throws Error(kValidation, kDtype) that
/// names the array where `object` is something else; what asks the program to stop, and MemoryError, as they are. Needs
/// the GIL.
pybind11::object to_array(pybind11::handle object, std::string_view name, ArrayRole role = ArrayRole::kInput);

/// torch can keep a sign in a bit beside the memory, which DLPack does not carry: the same tensor without it.
pybind11::object without_negative_bit(pybind11::handle object);

/// Where the elements of a numpy array lie, by numpy's own record of it: what a subclass says of itself is not asked.
/// Runs no Python unless it throws. Python that runs afterwards may change the array: all arrays of a call are made
/// first, and then looked at. Throws Error(kValidation, kDtype or kShape) where no model takes the like; the message
/// says that `expected` is.
StridedView view_of(pybind11::handle array, std::string_view name, DType expected, ArrayRole role = ArrayRole::kInput);

/// Its shape alone, with the same checks of the array.
Shape shape_of_array(pybind11::handle array, std::string_view name, ArrayRole role = ArrayRole::kInput);

/// Whether it is a masked array, of whose mask numpy's C interface knows nothing. Runs no Python.
bool is_masked(PyObject* object);

/// What messages call it.
std::string array_label(std::string_view name, ArrayRole role);

/// Whether numpy lets the elements of an array be written, by the same record.
bool is_writable(pybind11::handle array);

/// True where the elements lie contiguous and aligned, as a tensor's do.
bool lies_as_tensor(const StridedView& view);
/// True where a run may read every element from where it is. Never of bools: their bytes may be others than 0 and 1,
/// now or, as the memory is the caller's, by the time that they are read.
bool usable_in_place(const StridedView& view);

}  // namespace inferkit
