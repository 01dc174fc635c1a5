// Functions of one float by the names of their operators, which are those of fused activations, too.
#pragma once
#include <optional>
#include <string>

#include "engine/compile/lower.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit::cuda {

struct Function {
  kernels::Unary op = kernels::Unary::kIdentity;
  float alpha = 0, beta = 0;
};

/// By the name of an activation that a pass fuses into others, "" for none; empty where CUDA has no such function.
std::optional<Function> find_function(const std::string& activation, float alpha, float beta);
/// What a pass has fused into a node; empty where CUDA has no such function.
std::optional<Function> fused_function(const NodeContext& c);

}  // namespace inferkit::cuda
