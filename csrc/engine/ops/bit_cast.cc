// BitCast: the same bytes under another type of the same width.
#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "graph/onnx_tensor.h"

namespace inferkit {
namespace {

void infer_bit_cast(InferContext& c) {
  const auto code = static_cast<int32_t>(c.attr_int("to", 0));
  const auto to = onnx::dtype_of(code);
  if (!to || *to == DType::kString) c.unsupported("a cast to " + onnx::dtype_text(code));
  if (c.input(0).dtype == DType::kString) c.unsupported("strings");
  // Bytes other than 0 and 1 are no booleans.
  if (*to == DType::kBool && c.input(0).dtype != DType::kBool) c.unsupported("a cast to " + onnx::dtype_text(code));
  if (dtype_bits(*to) != dtype_bits(c.input(0).dtype)) {
    c.wrong(cat(dtype_name(c.input(0).dtype), " and ", dtype_name(*to), " differ in width"));
  }
  c.set_output(0, *to, c.input(0).shape);
}

void lower_bit_cast(LowerContext& c) { c.alias(0, 0); }

}  // namespace

void register_bit_cast(OpRegistry& r) {
  r.add({.name = "BitCast", .since = 26, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_bit_cast},
        lower_bit_cast);
}

}  // namespace inferkit
