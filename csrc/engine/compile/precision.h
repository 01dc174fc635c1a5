// What a model, and a way to run an operator, compute in.
#pragma once
#include <cstdint>
#include <string_view>

namespace inferkit {

enum class Precision : uint8_t {
  kAny,      // of a way: whatever type the node has
  kFloat32,  // of a way: for nodes whose first input is float32. Of a model: as its file says
  kBf16,     // the same nodes, with products of operands that are rounded to bf16, summed in float32
  kFloat16,  // the same with float16
};
/// Whether it is one of those that round the operands of products, for models that ask for it alone.
constexpr bool rounds_operands(Precision p) { return p == Precision::kBf16 || p == Precision::kFloat16; }

/// "any", "float32", "bf16", "float16".
std::string_view precision_name(Precision precision);

}  // namespace inferkit
