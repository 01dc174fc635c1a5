// The operators of ONNX Runtime's quantiser, spelled out: products as exact integer products, the rest on the numbers
// that the bytes stand for, rounded to bytes once at the end.
#include <array>

#include "engine/compile/expand.h"
#include "engine/ops/common/row_product.h"

namespace inferkit {
namespace {

using Attributes = Expansion::Attributes;

constexpr int kQuantizeOpset = 21, kMulOpset = 14, kCastOpset = 13;
constexpr int64_t kFloat = 1;

ValueId dequantized(Expansion& e, size_t value, size_t scale, size_t zero) {
  return e.add("DequantizeLinear", kQuantizeOpset, {e.in(value), e.in(scale), e.in(zero)});
}
/// In the type of the zero point, or else of the node's first input.
ValueId quantized(Expansion& e, ValueId id, size_t scale, size_t zero) {
  const ValueId point = e.has(zero) ? e.in(zero) : e.add("CastLike", 15, {e.number(0), e.in(0)});
  return e.add("QuantizeLinear", kQuantizeOpset, {id, e.in(scale), point});
}

// ---- Elementwise and pooling ----------------------------------------------------------------------------------------

/// Inputs a, its scale and zero point; b, its scale and zero point; the result's.
void expand_binary(Expansion& e) {
  const char* op = e.node().op_type == "QLinearAdd" ? "Add" : "Mul";
  e.give(0, quantized(e, e.add(op, kMulOpset, {dequantized(e, 0, 1, 2), dequantized(e, 3, 4, 5)}), 6, 7));
}

void unary(Expansion& e, std::string_view op, int version, Attributes attributes = {}) {
  e.give(0, quantized(e, e.add(op, version, {dequantized(e, 0, 1, 2)}, std::move(attributes)), 3, 4));
}
void expand_sigmoid(Expansion& e) { unary(e, "Sigmoid", 13); }
void expand_leaky_relu(Expansion& e) { unary(e, "LeakyRelu", 16, e.keep({"alpha"})); }
void expand_softmax(Expansion& e) {
  const int64_t opset = e.attr("opset", int64_t{13});
  if (opset < 1 || opset > 1000) e.refuse(cat("opset ", opset));
  unary(e, "Softmax", static_cast<int>(opset), e.keep({"axis"}));
}

/// The dimensions of an image, which its kernel tells.
int64_t spatial_of(const Attributes& attributes) {
  const auto it = attributes.find("kernel_shape");
  const auto* kernel = it == attributes.end() ? nullptr : std::get_if<std::vector<int64_t>>(&it->second);
  return kernel ? static_cast<int64_t>(kernel->size()) : 0;
}
/// The channels, which are the last of the dimensions, as the second.
ValueId channels_second(Expansion& e, ValueId x, int64_t spatial) {
  std::vector<int64_t> order{0, spatial + 1};
  for (int64_t i = 0; i < spatial; ++i) order.push_back(i + 1);
  return e.add("Transpose", 13, {x}, {{"perm", order}});
}
ValueId channels_last(Expansion& e, ValueId x, int64_t spatial) {
  std::vector<int64_t> order{0};
  for (int64_t i = 0; i < spatial; ++i) order.push_back(i + 2);
  order.push_back(1);
  return e.add("Transpose", 13, {x}, {{"perm", order}});
}

void expand_average_pool(Expansion& e) {
  Attributes attributes = e.keep({"auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"});
  if (e.attr("channels_last", int64_t{0}) == 0) return unary(e, "AveragePool", 11, std::move(attributes));
  const int64_t spatial = spatial_of(attributes);
  if (spatial < 1 || spatial > 3) e.refuse("channels_last and a kernel_shape of no 1 to 3 dimensions");
  const ValueId x = channels_second(e, dequantized(e, 0, 1, 2), spatial);
  const ValueId y = e.add("AveragePool", 11, {x}, std::move(attributes));
  e.give(0, quantized(e, channels_last(e, y, spatial), 3, 4));
}
void expand_global_average_pool(Expansion& e) {
  if (e.attr("channels_last", int64_t{0}) == 0) return unary(e, "GlobalAveragePool", 1);
  // How many dimensions there are is not known here: the mean is of all between the first and the last.
  const ValueId x = dequantized(e, 0, 1, 2);
  const ValueId rank = e.add("Size", 13, {e.add("Shape", 13, {x})});
  const ValueId one = e.constant_of(make_tensor<int64_t>({}, std::span<const int64_t>(std::array<int64_t, 1>{1})));
  const ValueId axes = e.add("Range", 11, {one, e.add("Sub", kMulOpset, {rank, one}), one});
  e.give(0, quantized(e, e.add("ReduceMean", 18, {x, axes}), 3, 4));
}

/// Inputs: the result's scale and zero point, then value, scale and zero point of each part.
void expand_concat(Expansion& e) {
  std::vector<ValueId> parts;
  if (e.node().inputs.size() % 3 != 2) e.refuse("parts that are not value, scale and zero point");
  for (size_t i = 2; i < e.node().inputs.size(); i += 3) parts.push_back(dequantized(e, i, i + 1, i + 2));
  e.give(0, quantized(e, e.add("Concat", 13, std::move(parts), e.keep({"axis"})), 0, 1));
}

void expand_where(Expansion& e) {
  const ValueId picked = e.add("Where", 16, {e.in(0), dequantized(e, 1, 2, 3), dequantized(e, 4, 5, 6)});
  e.give(0, quantized(e, picked, 7, 8));
}

void expand_quantize(Expansion& e) {
  e.give(0, e.add(e.node().op_type, kQuantizeOpset, {e.in(0), e.in(1), e.in(2)}, e.keep({"axis"})));
}

// ---- Products -------------------------------------------------------------------------------------------------------

ValueId as_float(Expansion& e, ValueId id) { return e.add("Cast", kCastOpset, {id}, {{"to", kFloat}}); }
ValueId product(Expansion& e, ValueId a, ValueId b) { return e.add("Mul", kMulOpset, {a, b}); }

/// float(sums) * (left scale * right scale) (+ bias), in the type of `like`.
ValueId rescaled(Expansion& e, ValueId sums, ValueId left, ValueId right, ValueId bias, ValueId like) {
  ValueId y = product(e, as_float(e, sums), product(e, as_float(e, left), as_float(e, right)));
  if (bias != kNoValue) y = e.add("Add", kMulOpset, {y, as_float(e, bias)});
  return e.add("CastLike", 15, {y, like});
}

/// A, B, A's scale, B's scale, A's zero point, B's zero point, bias.
void expand_integer_to_float(Expansion& e) {
  const ValueId sums = e.add("MatMulInteger", 10, {e.in(0), e.in(1), e.in(4), e.in(5)});
  e.give(0, rescaled(e, sums, e.in(2), e.in(3), e.in(6), e.in(2)));
}

/// A (float), B, B's scale, B's zero point, bias.
void expand_dynamic_matmul(Expansion& e) {
  const auto a = e.add_many(3, "DynamicQuantizeLinear", 11, {e.in(0)});
  const ValueId sums = e.add("MatMulInteger", 10, {a[0], e.in(1), a[2], e.in(3)});
  e.give(0, rescaled(e, sums, a[1], e.in(2), e.in(4), e.in(0)));
}

/// A with scale and zero point, B likewise, C (int32), the result's scale and zero point (or float where there is
/// none).
void expand_gemm(Expansion& e) {
  const auto operand = [&](size_t i, std::string_view flag) {
    if (e.attr(flag, int64_t{0}) == 0) return e.in(i);
    return e.add("Transpose", 13, {e.in(i)}, {{"perm", std::vector<int64_t>{1, 0}}});
  };
  const ValueId a = operand(0, "transA"), b = operand(3, "transB");
  ValueId sums = e.add("MatMulInteger", 10, {a, b, e.in(2), e.in(5)});
  if (e.has(6)) sums = e.add("Add", kMulOpset, {sums, e.in(6)});
  ValueId scale = product(e, e.in(1), e.in(4));
  if (const float alpha = e.attr("alpha", 1.0f); alpha != 1) scale = product(e, scale, e.number(alpha));
  const ValueId y = product(e, as_float(e, sums), scale);
  if (e.has(8) && !e.has(7)) e.refuse("a zero point of the result without its scale");
  e.give(0, e.has(8) ? quantized(e, y, 7, 8) : y);
}

// ---- DynamicQuantizeLSTM: an LSTM whose weights are bytes -----------------------------------------------------------

/// W [directions, in, 4 hidden] as LSTM's [directions, 4 hidden, in]. The scale is one per direction, or one for each
/// of its columns.
ValueId lstm_weights(Expansion& e, size_t value, size_t scale, size_t zero) {
  const ValueId axes = e.integers({1});
  const auto spread = [&](ValueId id) {  // [d] and [d, n] -> [d, 1, 1] and [d, 1, n]
    const Tensor* t = e.constant(id);
    if (!t) e.refuse("scales and zero points that are only known during a run");
    if (t->shape.rank() == 1) return e.add("Unsqueeze", 13, {id, e.integers({1, 2})});
    if (t->shape.rank() == 2) return e.add("Unsqueeze", 13, {id, axes});
    e.refuse(cat("scales or zero points of shape ", t->shape.str()));
  };
  const ValueId bytes = as_float(e, e.in(value));
  const ValueId centred = e.has(zero) ? e.add("Sub", kMulOpset, {bytes, as_float(e, spread(e.in(zero)))}) : bytes;
  return e.add("Transpose", 13, {product(e, centred, spread(e.in(scale)))}, {{"perm", std::vector<int64_t>{0, 2, 1}}});
}

/// Can products take the weights `value` as the bytes that they are (common/row_product.h)?
bool stay_bytes(const Expansion& e, size_t value, size_t scale, size_t zero) {
  const Tensor *w = e.constant(e.in(value)), *scales = e.constant(e.in(scale)), *zeros = e.constant(e.in(zero));
  if (!w || w->shape.rank() != 3 || w->shape[1] > kLongestRowSum) return false;
  const int64_t matrices = w->shape[0], columns = w->shape[2];
  const auto fits = [&](const Tensor& t) { return t.shape == Shape{matrices} || t.shape == Shape{matrices, columns}; };
  if ((w->dtype != DType::kU8 && w->dtype != DType::kI8) || !scales || scales->dtype != DType::kF32 || !fits(*scales)) {
    return false;
  }
  return !e.has(zero) || (zeros && zeros->dtype == w->dtype && fits(*zeros));
}

/// Inputs and state are rounded to bytes: in ONNX Runtime by the range of the whole batch, here each row by its own, so
/// that its answer does not depend on its neighbours.
void expand_lstm(Expansion& e) {
  Attributes attributes = e.keep(
      {"activations", "activation_alpha", "activation_beta", "clip", "direction", "hidden_size", "input_forget"});
  std::vector<ValueId> inputs, y;
  if (stay_bytes(e, 1, 8, 9) && stay_bytes(e, 2, 10, 11)) {
    for (size_t i = 0; i < 12; ++i) inputs.push_back(e.in(i));
    y = e.add_internal(3, "ByteLSTM", std::move(inputs), std::move(attributes));
  } else {
    inputs = {e.in(0), lstm_weights(e, 1, 8, 9), lstm_weights(e, 2, 10, 11)};
    for (size_t i = 3; i <= 7; ++i) inputs.push_back(e.in(i));
    y = e.add_many(3, "LSTM", 14, std::move(inputs), std::move(attributes));
  }
  for (size_t o = 0; o < y.size(); ++o) {
    if (e.wants(o)) e.give(o, y[o]);
  }
}

// ---- NhwcMaxPool ----------------------------------------------------------------------------------------------------

void expand_nhwc_max_pool(Expansion& e) {
  Attributes attributes = e.keep({"auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"});
  const int64_t spatial = spatial_of(attributes);
  if (spatial < 1 || spatial > 3) e.refuse("a kernel_shape of no 1 to 3 dimensions");
  const ValueId y = e.add("MaxPool", 12, {channels_second(e, e.in(0), spatial)}, std::move(attributes));
  e.give(0, channels_last(e, y, spatial));
}

void add(OpRegistry& r, std::string_view name, int min_inputs, int max_inputs, ExpandFn expand) {
  add_expanded(r,
               {.domain = kMicrosoft,
                .name = name,
                .min_inputs = min_inputs,
                .max_inputs = max_inputs,
                .max_outputs = name == "DynamicQuantizeLSTM" ? 3 : 1},
               expand);
}

}  // namespace

void register_qlinear(OpRegistry& r) {
  add(r, "QLinearAdd", 7, 8, expand_binary);
  add(r, "QLinearMul", 7, 8, expand_binary);
  add(r, "QLinearSigmoid", 4, 5, expand_sigmoid);
  add(r, "QLinearLeakyRelu", 4, 5, expand_leaky_relu);
  add(r, "QLinearSoftmax", 5, 5, expand_softmax);
  add(r, "QLinearAveragePool", 4, 5, expand_average_pool);
  add(r, "QLinearGlobalAveragePool", 5, 5, expand_global_average_pool);
  add(r, "QLinearConcat", 5, 1'000'000, expand_concat);
  add(r, "QLinearWhere", 9, 9, expand_where);
  add(r, "QuantizeLinear", 2, 3, expand_quantize);
  add(r, "DequantizeLinear", 2, 3, expand_quantize);
  add(r, "MatMulIntegerToFloat", 4, 7, expand_integer_to_float);
  add(r, "DynamicQuantizeMatMul", 3, 5, expand_dynamic_matmul);
  add(r, "QGemm", 6, 9, expand_gemm);
  add(r, "DynamicQuantizeLSTM", 12, 12, expand_lstm);
  add(r, "NhwcMaxPool", 1, 1, expand_nhwc_max_pool);
}

}  // namespace inferkit
