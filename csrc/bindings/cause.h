// The Python exception behind a Status: what Status::cause points to.
#pragma once
#include <pybind11/pybind11.h>

#include "base/error.h"

namespace inferkit {

class Request;

struct Cause {
  pybind11::object value, trace;
};

/// Of what a callable raised. Needs the GIL; may be let go of without.
std::shared_ptr<void> make_cause(const pybind11::error_already_set& error);
/// Null where there is none.
const Cause* cause_of(const Status& status);

// The requests of a batch that failed share one cause, and the garbage collector cannot tell how many of them refer to
// it. So a request that has ended gets one of its own when its error is asked for, and only such are shown. With the
// GIL.
void own_cause(Request& request);
int visit_cause(const Request& request, visitproc visit, void* arg);

}  // namespace inferkit
