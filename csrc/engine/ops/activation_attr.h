// The activation that a pass has fused into a node (attributes activation, activation_alpha, activation_beta, or
// those of another name), as the kernels name it.
#pragma once
#include "engine/compile/lower.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit {

struct FusedActivation {
  kernels::Unary op = kernels::Unary::kIdentity;
  float alpha = 0, beta = 0;
};

inline FusedActivation fused_activation(const NodeContext& c, const std::string& attribute = "activation") {
  using kernels::Unary;
  const std::string name = c.attr_string(attribute, "");
  FusedActivation out{Unary::kIdentity, c.attr_float(attribute + "_alpha", 0), c.attr_float(attribute + "_beta", 0)};
  constexpr struct {
    std::string_view name;
    Unary op;
  } kRows[] = {{"", Unary::kIdentity}, {"Relu", Unary::kRelu},           {"LeakyRelu", Unary::kLeakyRelu},
               {"Clip", Unary::kClip}, {"Sigmoid", Unary::kSigmoid},     {"Tanh", Unary::kTanh},
               {"Gelu", Unary::kGelu}, {"GeluTanh", Unary::kGeluTanh},   {"Silu", Unary::kSilu},
               {"Elu", Unary::kElu},   {"HardSwish", Unary::kHardSwish}, {"HardSigmoid", Unary::kHardSigmoid}};
  for (const auto& row : kRows) {
    if (row.name == name) {
      out.op = row.op;
      if (row.op == Unary::kSilu) out.alpha = 1;
      return out;
    }
  }
  c.unsupported(cat("fused activation ", name));
}

}  // namespace inferkit
