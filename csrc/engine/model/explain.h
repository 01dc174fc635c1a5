// A plan with what was decided about it, and with how long its steps take where it was run.
#pragma once
#include <memory>
#include <vector>

#include "engine/compile/plan_notes.h"

namespace inferkit {

struct Explained {
  std::shared_ptr<const Plan> plan;
  PlanNotes notes;
  int threads = 1;             // that a run may use
  int64_t runs = 0;            // that were measured
  std::vector<int64_t> nanos;  // of each of notes.nodes, the median of the runs; empty where none was measured
};

}  // namespace inferkit
