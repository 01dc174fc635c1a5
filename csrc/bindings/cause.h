// The Python exception behind a Status: what Status::cause points to.
#pragma once
#include <pybind11/pybind11.h>

#include "base/error.h"
#include "batching/cause.h"

namespace inferkit {

class Request;

/// The garbage collector must know of each reference to an exception who has it, so no two requests share one of these.
/// They get theirs on threads without the GIL, where nothing may be counted: so each comes with references for so many
/// others, counted in advance.
class RaisedCause final : public Cause {
 public:
  /// Needs the GIL, as the destructor does.
  RaisedCause(pybind11::object value_, pybind11::object trace_, size_t others);
  ~RaisedCause() override;
  RaisedCause(const RaisedCause&) = delete;
  RaisedCause& operator=(const RaisedCause&) = delete;

  std::shared_ptr<Cause> another() noexcept override;

  pybind11::object value, trace;

 private:
  RaisedCause() = default;
  void count_in_advance(size_t others) noexcept;

  size_t others_ = 0;  // for whom there are references
};

/// Of what a callable raised, for a batch of so many requests; more take the GIL. Needs the GIL; may be let go of
/// without.
std::shared_ptr<Cause> make_cause(const pybind11::error_already_set& error, size_t requests);
/// Null where there is none.
const RaisedCause* cause_of(const Status& status);
/// Shows the garbage collector what the request refers to.
int visit_cause(const Request& request, visitproc visit, void* arg);

}  // namespace inferkit
