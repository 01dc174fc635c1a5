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
};

}  // namespace inferkit
