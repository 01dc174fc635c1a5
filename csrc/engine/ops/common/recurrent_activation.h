// The activation functions of LSTM, GRU and RNN, by ONNX's names.
#pragma once
#include <cstdint>
#include <vector>

#include "graph/op_schema.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit {

/// post * op(pre * x) + shift.
struct RecurrentActivation {
  kernels::Unary op = kernels::Unary::kIdentity;
  float alpha = 0, beta = 0;  // of op
  float pre = 1, post = 1, shift = 0;

  /// x[i] = f(x[i]).
  void apply(float* x, int64_t n) const;
  void apply(double* x, int64_t n) const;
};

/// The attributes activations, activation_alpha and activation_beta: `defaults` (one direction's) where the first is
/// absent, one per gate kind and direction. Refuses names and missing parameters that it does not know.
std::vector<RecurrentActivation> recurrent_activations(const NodeContext& c, const std::vector<std::string>& defaults,
                                                       int64_t directions);

}  // namespace inferkit
