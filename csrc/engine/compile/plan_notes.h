// What a compilation can say of the plan that it makes: of each node, which way was chosen and why, and what its steps
// take. For Model::explain(); a plan itself holds none of it.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/compile/place.h"
#include "engine/plan/plan.h"

namespace inferkit {

struct ValueNote {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
};

/// One node of the plan, or the copy that makes an output.
struct NodeNote {
  std::string op;  // with its domain, where that is not ONNX's
  std::string name;
  std::vector<NodeOrigin> origins;       // the nodes of the file that it stands for; empty for copies
  const Lowering* lowering = nullptr;    // null for copies
  DeviceKind device = DeviceKind::kCpu;  // of a copy, where it runs
  std::optional<DeviceKind> to;          // of a copy between memories, where it ends
  std::string fallback;                  // why the CPU runs it and not the plan's device; empty where that does
  Choice::Why why = Choice::Why::kOnly;
  Layout layout = Layout::kPlain;          // of its output
  std::vector<Considered> considered;      // where there was a choice
  std::vector<ValueNote> inputs, outputs;  // without those that are left out
  size_t read_bytes = 0;                   // its inputs, weights included; 0 where it has no step
  size_t written_bytes = 0;                // its outputs; 0 where it has no step
  size_t scratch_bytes = 0;
  double nanos = 0;                  // as estimated, on one thread
  size_t first_step = 0, steps = 0;  // in the plan; none where its output is memory of its input
  std::vector<KernelNote> kernels;   // that its steps launch, on a device whose steps are no functions
};

struct PlanNotes {
  std::vector<NodeNote> nodes;              // in the order in which they run
  std::map<const void*, size_t> constants;  // that the nodes read: their bytes, as they stand in the model
};

}  // namespace inferkit
