// What the operators of an inferkit.Chain read and write, for the lowerings of every device.
#pragma once
#include <vector>

#include "engine/compile/op_registry.h"
#include "graph/passes/passes.h"

namespace inferkit {

inline constexpr int kChainRegisters = 6;  // values that are still to be read

/// One operator: of two values, or of one, and Clip's bounds are two numbers.
struct ChainLink {
  enum class Op : uint8_t { kAdd, kSub, kMul, kDiv, kRelu, kSigmoid, kTanh, kClip };
  /// Where a value is: a register from 0 on, or one of these.
  static constexpr int kNumber = -1, kX = -2, kY = -3;
  Op op = {};
  float numbers[2] = {};
  int a = kX, b = kNumber, to = kY;
};

/// The operators in their order; the last one writes y, and no other does.
std::vector<ChainLink> chain_links(const NodeContext& c);

}  // namespace inferkit
