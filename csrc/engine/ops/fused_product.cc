// The products of ONNX Runtime's optimiser: FusedMatMul, TransposeMatMul, FusedGemm, FusedConv, and MatMulNBits with
// constant weights. All are spelled out in ONNX's operators.
#include <array>

#include "engine/compile/expand.h"

namespace inferkit {
namespace {

using Attributes = Expansion::Attributes;

/// An operand as a product reads it. `of_batch`: its first dimension comes behind those of the batch first; `of_last`:
/// then the last two change places.
ValueId transposed(Expansion& e, ValueId id, bool of_batch, bool of_last) {
  if (!of_batch && !of_last) return id;
  std::string equation = of_batch ? "i...j->" : "...ij->";
  equation += of_last ? "...ji" : "...ij";
  return e.add("Einsum", 12, {id}, {{"equation", std::move(equation)}});
}

void expand_matmul(Expansion& e) {
  const auto asked = [&](const char* name) { return e.attr(name, int64_t{0}) != 0; };
  const ValueId a = transposed(e, e.in(0), asked("transBatchA"), asked("transA"));
  const ValueId b = transposed(e, e.in(1), asked("transBatchB"), asked("transB"));
  const float alpha = e.attr("alpha", 1.0f);
  e.give(0,
         alpha == 1 ? e.add("MatMul", 13, {a, b}) : e.add_internal(1, "ScaledMatMul", {a, b}, {{"alpha", alpha}})[0]);
}

/// The activations that the fusions write, and the attributes that their parameters become.
struct Activation {
  std::string_view name;
  int version;
  std::array<const char*, 2> parameters;
};
constexpr Activation kActivations[] = {{"Relu", 14, {}},
                                       {"Sigmoid", 13, {}},
                                       {"Tanh", 13, {}},
                                       {"Softsign", 1, {}},
                                       {"Softplus", 1, {}},
                                       {"LeakyRelu", 16, {"alpha"}},
                                       {"ThresholdedRelu", 10, {"alpha"}},
                                       {"Elu", 6, {"alpha"}},
                                       {"HardSigmoid", 6, {"alpha", "beta"}},
                                       {"Clip", 6, {"min", "max"}}};

ValueId activated(Expansion& e, ValueId id, const std::vector<float>& parameters) {
  const std::string name = e.attr("activation", "");
  if (name.empty()) return id;
  for (const Activation& a : kActivations) {
    if (a.name != name) continue;
    Attributes attributes;
    for (size_t i = 0; i < a.parameters.size() && a.parameters[i]; ++i) {
      if (i >= parameters.size()) e.refuse("the activation " + name + " without its parameters");
      attributes.emplace(a.parameters[i], parameters[i]);
    }
    return e.add(name, a.version, {id}, std::move(attributes));
  }
  e.refuse("the activation " + name);
}

void expand_gemm(Expansion& e) {
  const ValueId y = e.add("Gemm", 13, {e.in(0), e.in(1), e.in(2)}, e.keep({"alpha", "beta", "transA", "transB"}));
  std::vector<float> parameters;
  for (const std::string_view name : {"activation_alpha", "activation_beta"}) {
    if (!e.keep({name}).empty()) parameters.push_back(e.attr(name, 0.0f));
  }
  e.give(0, activated(e, y, parameters));
}

void expand_conv(Expansion& e) {
  ValueId y = e.add("Conv", 11, {e.in(0), e.in(1), e.in(2)},
                    e.keep({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"}));
  if (e.has(3)) y = e.add("Add", 14, {y, e.in(3)});
  std::vector<float> parameters;
  for (const auto& [name, value] : e.keep({"activation_params"})) {
    if (const auto* floats = std::get_if<FloatList>(&value)) {
      parameters.assign(floats->values().begin(), floats->values().end());
    }
  }
  e.give(0, activated(e, y, parameters));
}

// ---- MatMulNBits: blocks of `bits` wide weights along K, widened when the model is loaded --------------------------

enum NBitsInput : size_t { kA, kB, kScales, kZeroPoints, kGroups, kBias };

/// Value i of a row that is packed from the low bits up.
int packed_at(const uint8_t* row, int64_t i, int64_t bits) {
  const int64_t bit = i * bits;
  return row[bit / 8] >> (bit % 8) & ((1 << bits) - 1);
}

void expand_matmul_nbits(Expansion& e) {
  const int64_t bits = e.attr("bits", int64_t{4}), block = e.attr("block_size", int64_t{0});
  const int64_t k = e.attr("K", int64_t{0}), n = e.attr("N", int64_t{0});
  if (bits != 2 && bits != 4 && bits != 8) e.refuse(cat(bits, " bits"));
  constexpr int64_t kMost = int64_t{1} << 30;
  if (block < 16 || block > kMost || (block & (block - 1)) != 0) e.refuse(cat("block_size ", block));
  if (k < 1 || n < 1 || k > kMost || n > kMost) e.refuse(cat("K ", k, " and N ", n));
  if (e.attr("weight_prepacked", int64_t{0}) != 0) e.refuse("weights packed for a device");
  if (e.has(kGroups)) e.refuse("g_idx");
  const Tensor *b = e.constant(e.in(kB)), *scales = e.constant(e.in(kScales)), *zeros = e.constant(e.in(kZeroPoints));
  if (!b || !scales || (e.has(kZeroPoints) && !zeros)) e.refuse("weights that are only known during a run");
  if (scales->dtype != DType::kF32) e.refuse(cat("scales of type ", dtype_name(scales->dtype)));
  const int64_t blocks = (k + block - 1) / block, blob = block * bits / 8, zero_row = (blocks * bits + 7) / 8;
  if (b->dtype != DType::kU8 || b->shape.elements() != n * blocks * blob) {
    e.refuse(cat("weights of shape ", b->shape.str(), " for N ", n, ", K ", k, " and blocks of ", block));
  }
  if (scales->shape.elements() != n * blocks) e.refuse(cat("scales of shape ", scales->shape.str()));
  const bool packed_zeros = zeros && zeros->dtype == DType::kU8;
  if (zeros && (!packed_zeros && zeros->dtype != DType::kF32)) e.refuse("zero points of that type");
  if (zeros && zeros->shape.elements() != n * (packed_zeros ? zero_row : blocks)) {
    e.refuse(cat("zero points of shape ", zeros->shape.str()));
  }
  void* data = nullptr;
  Tensor weights = make_tensor(DType::kF32, {k, n}, &data);
  for (const int64_t col : stoppable_indices(n)) {
    for (int64_t i = 0; i < k; ++i) {
      const int64_t at = i / block;
      float zero = static_cast<float>(1 << (bits - 1));
      if (packed_zeros) zero = static_cast<float>(packed_at(zeros->as<uint8_t>() + col * zero_row, at, bits));
      if (zeros && !packed_zeros) zero = zeros->as<float>()[col * blocks + at];
      const int q = packed_at(b->as<uint8_t>() + (col * blocks + at) * blob, i % block, bits);
      static_cast<float*>(data)[i * n + col] = (static_cast<float>(q) - zero) * scales->as<float>()[col * blocks + at];
    }
  }
  const ValueId y = e.add("MatMul", 13, {e.in(kA), e.constant_of(std::move(weights))});
  e.give(0, e.has(kBias) ? e.add("Add", 14, {y, e.in(kBias)}) : y);
}

void add(OpRegistry& r, std::string_view name, int min_inputs, int max_inputs, ExpandFn expand) {
  add_expanded(
      r, {.domain = kMicrosoft, .name = name, .min_inputs = min_inputs, .max_inputs = max_inputs, .max_outputs = 1},
      expand);
}

}  // namespace

void register_fused_product(OpRegistry& r) {
  add(r, "FusedMatMul", 2, 2, expand_matmul);
  add(r, "TransposeMatMul", 2, 2, expand_matmul);
  add(r, "FusedGemm", 2, 3, expand_gemm);
  add(r, "FusedConv", 2, 4, expand_conv);
  add(r, "MatMulNBits", 3, 6, expand_matmul_nbits);
}

}  // namespace inferkit
