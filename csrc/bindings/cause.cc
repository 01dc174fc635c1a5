#include "bindings/cause.h"

#include <new>

#include "batching/request.h"
#include "bindings/errors.h"
#include "bindings/gil.h"

namespace py = pybind11;

namespace inferkit {
namespace {
constexpr size_t kMore = 16;  // that are counted at once where more come than were expected
}  // namespace

RaisedCause::RaisedCause(py::object value_, py::object trace_, size_t others)
    : value(std::move(value_)), trace(std::move(trace_)) {
  count_in_advance(others);
}

RaisedCause::~RaisedCause() {
  for (; others_ > 0; --others_) {
    value.dec_ref();
    trace.dec_ref();
  }
}

void RaisedCause::count_in_advance(size_t others) noexcept {
  for (; others > 0; --others, ++others_) {
    value.inc_ref();
    trace.inc_ref();
  }
}

std::shared_ptr<Cause> RaisedCause::another() noexcept {
  if (others_ == 0) {
    if (!Py_IsInitialized()) return nullptr;
    const py::gil_scoped_acquire gil;
    count_in_advance(kMore);
  }
  try {
    std::unique_ptr<RaisedCause, GilDeleter<RaisedCause>> made(new RaisedCause);
    --others_;
    made->value = py::reinterpret_steal<py::object>(value);
    made->trace = py::reinterpret_steal<py::object>(trace);
    return made;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

std::shared_ptr<Cause> make_cause(const py::error_already_set& error, size_t requests) {
  return std::unique_ptr<RaisedCause, GilDeleter<RaisedCause>>(
      new RaisedCause(exception_of(error), error.trace(), requests));
}

const RaisedCause* cause_of(const Status& status) {
  return static_cast<const RaisedCause*>(static_cast<const Cause*>(status.cause.get()));
}

int visit_cause(const Request& request, visitproc visit, void* arg) {
  if (request.phase() != Phase::kError) return 0;
  const RaisedCause* cause = cause_of(request.status);
  // Where somebody else has the same, it is that one's as well: for want of memory, or for a moment.
  if (!cause || request.status.cause.use_count() > 1) return 0;
  Py_VISIT(cause->value.ptr());
  Py_VISIT(cause->trace.ptr());
  return 0;
}

}  // namespace inferkit
