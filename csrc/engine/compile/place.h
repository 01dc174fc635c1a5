// The stage between infer and lower: which of its operator's ways each node takes.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "engine/compile/op_registry.h"

namespace inferkit {

/// Ways that somebody asks for, by the names of operators, whatever domain they are of: INFERKIT_LOWERING, for tests.
class LoweringWishes {
 public:
  LoweringWishes() = default;
  /// "Conv=rows,ReduceSum=generic"; empty text asks for nothing. Throws std::invalid_argument that lists the names
  /// where one is unknown.
  static LoweringWishes parse(std::string_view text);
  /// What INFERKIT_LOWERING asks for, read once.
  static const LoweringWishes& of_process();

  /// Empty where nothing is asked for.
  std::string_view of(std::string_view op) const;

 private:
  std::map<std::string, std::string, std::less<>> by_op_;
};

/// One way with what it would cost.
struct Considered {
  const Lowering* lowering;
  Cost cost;
};

struct Choice {
  const Lowering* lowering = nullptr;  // null: the node needs no steps
  enum class Why : uint8_t {
    kOnly,         // its operator has no other
    kCheapest,     // of those that can
    kPrecision,    // of those in the model's precision
    kForced,       // asked for
    kNeighbours,   // with what turns layouts into each other, it is the cheapest for the nodes around it
    kCannotForce,  // another one is asked for, which cannot run the node: the cheapest
  } why = Why::kOnly;
};

/// Throws as costs do, and where no way of the device can run the node. Ways in bf16 are for models in bf16; where one
/// of them can run a node, it does. `considered`, where it is not null, gets all ways in the order of the list.
Choice choose_lowering(const OpDef& def, DeviceKind device, const NodeContext& node, const LoweringWishes& wishes,
                       std::vector<Considered>* considered = nullptr, Precision precision = Precision::kFloat32);

}  // namespace inferkit
