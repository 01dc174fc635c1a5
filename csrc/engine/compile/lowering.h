// The ways to run an operator. A family registers a list of them, best first, and the stage `place` picks one for each
// node: the one of least cost among those that can. All of them mean the same; in float32, and in bf16, they give the
// same bits where they follow the summation rule (kernels/summation.h), and tests/cpp/engine/compile/test_place.cc
// takes each by force.
#pragma once
#include <string_view>

#include "device/device.h"
#include "engine/compile/lower.h"
#include "engine/compile/precision.h"

namespace inferkit {

/// What a way takes for one node, as nanoseconds on one thread of an idle core; or why it cannot run the node. It is
/// there to compare the ways of one operator with: what all of them do may be left out.
class Cost {
 public:
  explicit constexpr Cost(double nanos) : nanos_(nanos) {}
  /// `why` is a literal, and goes on from "it cannot: ".
  static constexpr Cost cannot(std::string_view why) { return {0, why}; }

  constexpr bool possible() const { return why_not_.empty(); }
  constexpr double nanos() const { return nanos_; }
  constexpr std::string_view why_not() const { return why_not_; }

 private:
  constexpr Cost(double nanos, std::string_view why_not) : nanos_(nanos), why_not_(why_not) {}
  double nanos_;
  std::string_view why_not_;
};

/// May throw as a lowering may. Shapes, dtypes and constants are known, and the shape rule has accepted them.
using CostFn = Cost (*)(const NodeContext&);
/// The same of a way whose input 0 and output may lie in blocks, each by itself, where it can run the node: infinite
/// where the input cannot.
using BlocksNanosFn = double (*)(const NodeContext&, bool in_blocks, bool out_blocks);
/// What it costs where all of its inputs and outputs of float32 lie in blocks, of a way for which all do, or none.
using AlikeCostFn = CostFn;

struct Lowering {
  std::string_view name;  // unlike the others of its operator; INFERKIT_LOWERING and explain() say it
  LowerFn lower = nullptr;
  CostFn cost = nullptr;  // null where it can run every node of its precision, and there is nothing to compare
  Precision precision = Precision::kAny;
  DeviceKind device = DeviceKind::kCpu;
  BlocksNanosFn blocks_nanos = nullptr;  // null, and the next too, where all of its tensors are plain
  AlikeCostFn alike_cost = nullptr;
  bool is_view = false;   // of a device: the output is memory of input 0, so that it takes no time where that is
  bool is_light = false;  // of a device: it does no more with its values than a copy or a function of each
};

inline constexpr std::string_view kOnlyLowering = "default";  // the name of the way of an operator that has one

std::string_view layout_name(Layout layout);

}  // namespace inferkit
