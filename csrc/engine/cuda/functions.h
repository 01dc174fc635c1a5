// Functions of one float by the names of their operators, which are those of fused activations, too.
#pragma once
#include <optional>

#include "engine/compile/lower.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit::cuda {

struct Function {
  kernels::Unary op = kernels::Unary::kIdentity;
  float alpha = 0, beta = 0;
};

/// What a pass has fused into a node; empty where CUDA has no such function.
std::optional<Function> fused_function(const NodeContext& c);

}  // namespace inferkit::cuda
