// From a call's arguments to a request's inputs, and from a result to arrays.
#pragma once
#include <pybind11/pybind11.h>

#include <span>
#include <vector>

#include "batching/batcher.h"
#include "bindings/array_in.h"
#include "bindings/port_vector.h"
#include "bindings/text_arrays.h"

namespace inferkit {

/// The arrays of one request, in the model's order. Keeps their owners alive.
class RequestInputs {
 public:
  static constexpr size_t kFew = 4;  // so many need no allocation
  /// One object for each input, or a single dict of them by name; the last ones, in a dict any, may be left out where
  /// they have a fallback. May run any Python. Throws Error(kValidation).
  RequestInputs(std::span<PyObject* const> arguments, std::span<const PortSpec> specs);

  /// Where the arrays lie: no Python may run between this and the end of their use, but in the run itself. Throws
  /// Error(kValidation).
  /// Strings are converted to memory of `pool`. `now` are the ports of the model that runs now, whose values stand for
  /// what was left out; nobody looks at them where the request is complete.
  void look(BufferPool& pool, std::span<const PortSpec> now);
  std::span<const StridedView> views() const { return views_.span(); }
  bool named() const { return named_; }
  /// Whether none was left out.
  bool complete() const { return complete_; }
  /// Ready to be run where they lie; the values not yet checked.
  bool in_place() const;

 private:
  const std::span<const PortSpec> specs_;
  PortVector<pybind11::object, kFew> arrays_;
  PortVector<StridedView, kFew> views_;
  std::vector<Buffer> texts_;                                 // what views of strings show
  std::vector<std::shared_ptr<const TensorView>> fallbacks_;  // what views of inputs that were left out show
  bool named_ = false, complete_ = true;
};

/// Of references that it takes over: whole before anybody sees it, as the garbage collector shows every tuple to
/// whoever asks, and then nobody can put anything into it.
pybind11::tuple tuple_of(std::span<pybind11::object> items);
/// One array, a tuple where the model has several outputs, or a dict by name.
pybind11::object pack_results(std::span<pybind11::object> arrays, std::span<const PortSpec> specs, bool named);
/// Copies a request's rows out of its batch.
pybind11::object copy_results(const Request& request, const BatchOutputs& outputs, std::span<const PortSpec> specs,
                              bool named);

/// Puts numbers straight into numpy arrays where the GIL is held during the run; strings, and everything where it is
/// not, into pooled memory, to be copied when the GIL is there.
class ArraySink final : public RowSink {
 public:
  ArraySink(std::span<const PortSpec> specs, BufferPool& pool, bool single_row, bool has_gil);
  /// After a run that was ok. Needs the GIL.
  pybind11::object take(bool named);

 protected:
  void* memory(size_t index, DType dtype, const Shape& shape) override;
  Buffer& text_memory(size_t index) override { return texts_[index]; }

 private:
  std::span<const PortSpec> specs_;
  BufferPool& pool_;
  const bool single_row_, has_gil_;
  PortVector<pybind11::object> arrays_;  // where `has_gil`, but for strings, which are made of buffers
  std::vector<Buffer> buffers_, texts_;
};

}  // namespace inferkit
