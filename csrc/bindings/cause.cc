#include "bindings/cause.h"

#include "batching/request.h"
#include "bindings/errors.h"
#include "bindings/gil.h"

namespace py = pybind11;

namespace inferkit {
namespace {

std::shared_ptr<void> shared(Cause cause) {
  return std::shared_ptr<Cause>(new Cause(std::move(cause)), GilDeleter<Cause>());
}

}  // namespace

std::shared_ptr<void> make_cause(const py::error_already_set& error) {
  return shared({exception_of(error), error.trace()});
}

const Cause* cause_of(const Status& status) { return static_cast<const Cause*>(status.cause.get()); }

void own_cause(Request& request) {
  if (request.phase() != Phase::kError) return;
  const Cause* cause = cause_of(request.status);
  if (cause && request.status.cause.use_count() > 1) request.status.cause = shared(*cause);
}

int visit_cause(const Request& request, visitproc visit, void* arg) {
  if (request.phase() != Phase::kError) return 0;
  const Cause* cause = cause_of(request.status);
  if (!cause || request.status.cause.use_count() > 1) return 0;
  Py_VISIT(cause->value.ptr());
  Py_VISIT(cause->trace.ptr());
  return 0;
}

}  // namespace inferkit
