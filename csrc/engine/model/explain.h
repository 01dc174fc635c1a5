// What a run is made of, with what was decided about it, and with how long it takes where it was measured.
#pragma once
#include <memory>
#include <vector>

#include "engine/run/run_profile.h"

namespace inferkit {

/// An output of the model, with the shape of this run.
struct ExplainedOutput {
  size_t output = 0;
  Port port;
};

/// What several threads would make of a run, by one on which one thread did what each of them had to do.
struct Scaling {
  int threads = 1;
  int64_t synchronizations = 0;  // that they would begin, and end, together
  double serial = 0;             // the share of the time that one thread takes in which the others would have nothing
  double speedup = 1;            // against one thread, with what a synchronisation takes on this machine
};

struct Explained {
  std::vector<Port> inputs;
  std::vector<ExplainedOutput> outputs;  // that are computed, without sequences
  std::vector<ProfiledNode> nodes;       // without times where none were measured
  std::vector<NodeOrigin> waiting;       // what follows, once the values are there that it needs; as the file names it
  bool complete = true;                  // nothing waits
  int threads = 1;                       // that a run may use
  int64_t runs = 0;                      // that were measured
  size_t arena_bytes = 0, weight_bytes = 0;
  double estimated_nanos = 0;
  std::vector<Scaling> scaling;  // where a run was measured
  Nanos synchronization = 0;     // what one takes here, with all threads; 0 where there is only one
};

}  // namespace inferkit
