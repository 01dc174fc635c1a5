// The products of ONNX Runtime's optimiser: FusedMatMul, TransposeMatMul, FusedGemm, FusedConv, and MatMulNBits with
// constant weights, whose scales and zero points may be computed. All are spelled out in ONNX's operators.
#include <array>
#include <optional>

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

// ---- MatMulNBits: blocks of `bits` wide weights along K, widened when the model is loaded, or, where their scales or
// zero points are only known during a run, in each run --------------------------------------------------------------

enum NBitsInput : size_t { kA, kB, kScales, kZeroPoints, kGroups, kBias };

/// Value i of a row that is packed from the low bits up.
int packed_at(const uint8_t* row, int64_t i, int64_t bits) {
  const int64_t bit = i * bits;
  return row[bit / 8] >> (bit % 8) & ((1 << bits) - 1);
}

struct NBits {
  int64_t bits, block, k, n, blocks;
  int64_t blob() const { return block * bits / 8; }                     // bytes of a block
  int64_t zero_row() const { return (blocks * bits + 7) / 8; }          // bytes of a column's zero points
  float middle() const { return static_cast<float>(1 << (bits - 1)); }  // the zero point that is left out
};

NBits nbits_of(Expansion& e) {
  const int64_t bits = e.attr("bits", int64_t{4}), block = e.attr("block_size", int64_t{0});
  const int64_t k = e.attr("K", int64_t{0}), n = e.attr("N", int64_t{0});
  if (bits != 2 && bits != 4 && bits != 8) e.refuse(cat(bits, " bits"));
  constexpr int64_t kMost = int64_t{1} << 30;
  if (block < 16 || block > kMost || (block & (block - 1)) != 0) e.refuse(cat("block_size ", block));
  if (k < 1 || n < 1 || k > kMost || n > kMost) e.refuse(cat("K ", k, " and N ", n));
  if (e.attr("weight_prepacked", int64_t{0}) != 0) e.refuse("weights packed for a device");
  if (e.has(kGroups)) e.refuse("g_idx");
  return {bits, block, k, n, (k + block - 1) / block};
}

/// The weights, where all that they are made of is constant.
ValueId widened(Expansion& e, const NBits& p, const Tensor& b, const Tensor& scales, const Tensor* zeros) {
  void* data = nullptr;
  Tensor weights = make_tensor(DType::kF32, {p.k, p.n}, &data);
  const bool packed_zeros = zeros && zeros->dtype == DType::kU8;
  for (const int64_t col : stoppable_indices(p.n)) {
    for (int64_t i = 0; i < p.k; ++i) {
      const int64_t at = i / p.block;
      float zero = p.middle();
      if (packed_zeros) zero = static_cast<float>(packed_at(zeros->as<uint8_t>() + col * p.zero_row(), at, p.bits));
      if (zeros && !packed_zeros) zero = zeros->as<float>()[col * p.blocks + at];
      const int q = packed_at(b.as<uint8_t>() + (col * p.blocks + at) * p.blob(), i % p.block, p.bits);
      static_cast<float*>(data)[i * p.n + col] =
          (static_cast<float>(q) - zero) * scales.as<float>()[col * p.blocks + at];
    }
  }
  return e.constant_of(std::move(weights));
}

/// Zero points, one for each block, of which a byte holds several, as numbers: [n, blocks, 1].
ValueId unpacked(Expansion& e, const NBits& p, ValueId zeros) {
  const int64_t each = 8 / p.bits;
  ValueId all = e.add("Reshape", 14, {zeros, e.integers({p.n, p.zero_row(), 1})});
  if (each > 1) {
    std::vector<uint8_t> shifts;
    for (int64_t i = 0; i < each; ++i) shifts.push_back(static_cast<uint8_t>(i * p.bits));
    const uint8_t mask[] = {static_cast<uint8_t>((1 << p.bits) - 1)};
    const ValueId by = e.constant_of(make_tensor<uint8_t>({each}, std::span<const uint8_t>(shifts)));
    all = e.add("BitShift", 11, {all, by}, {{"direction", std::string("RIGHT")}});
    all = e.add("BitwiseAnd", 18, {all, e.constant_of(make_tensor<uint8_t>({1}, std::span<const uint8_t>(mask)))});
    all = e.add("Reshape", 14, {all, e.integers({p.n, each * p.zero_row(), 1})});
    all = e.add("Slice", 13, {all, e.integers({0}), e.integers({p.blocks}), e.integers({1})});
  }
  return e.add("Cast", 13, {all}, {{"to", int64_t{1}}});
}

/// The weights, as a run makes them.
ValueId computed(Expansion& e, const NBits& p, const Tensor& b) {
  void* data = nullptr;
  Tensor whole = make_tensor(DType::kF32, {p.n, p.blocks, p.block}, &data);
  for (const int64_t i : stoppable_indices(p.n * p.blocks)) {
    for (int64_t j = 0; j < p.block; ++j) {
      static_cast<float*>(data)[i * p.block + j] =
          static_cast<float>(packed_at(b.as<uint8_t>() + i * p.blob(), j, p.bits));
    }
  }
  const auto of_blocks = [&](size_t i) { return e.add("Reshape", 14, {e.in(i), e.integers({p.n, p.blocks, 1})}); };
  ValueId zeros = kNoValue;
  if (!e.has(kZeroPoints)) {
    zeros = e.number(p.middle());
  } else if (const std::optional<DType> dtype = e.dtype(e.in(kZeroPoints)); dtype == DType::kU8) {
    zeros = unpacked(e, p, e.in(kZeroPoints));
  } else if (dtype) {
    zeros = of_blocks(kZeroPoints);
  } else {
    e.refuse("zero points of a type that the model file does not tell");
  }
  const ValueId shifted = e.add("Sub", 14, {e.constant_of(std::move(whole)), zeros});
  const ValueId scaled = e.add("Mul", 14, {shifted, of_blocks(kScales)});
  const ValueId rows = e.add("Reshape", 14, {scaled, e.integers({p.n, p.blocks * p.block})});
  const ValueId cut = e.add("Slice", 13, {rows, e.integers({0}), e.integers({p.k}), e.integers({1})});
  return e.add("Transpose", 13, {cut}, {{"perm", std::vector<int64_t>{1, 0}}});
}

void expand_matmul_nbits(Expansion& e) {
  const NBits p = nbits_of(e);
  const Tensor *b = e.constant(e.in(kB)), *scales = e.constant(e.in(kScales)), *zeros = e.constant(e.in(kZeroPoints));
  if (!b) e.refuse("weights that are only known during a run");
  if (scales && scales->dtype != DType::kF32) e.refuse(cat("scales of type ", dtype_name(scales->dtype)));
  if (b->dtype != DType::kU8 || b->shape.elements() != p.n * p.blocks * p.blob()) {
    e.refuse(cat("weights of shape ", b->shape.str(), " for N ", p.n, ", K ", p.k, " and blocks of ", p.block));
  }
  if (scales && scales->shape.elements() != p.n * p.blocks) e.refuse(cat("scales of shape ", scales->shape.str()));
  const bool packed_zeros = zeros && zeros->dtype == DType::kU8;
  if (zeros && (!packed_zeros && zeros->dtype != DType::kF32)) e.refuse("zero points of that type");
  if (zeros && zeros->shape.elements() != p.n * (packed_zeros ? p.zero_row() : p.blocks)) {
    e.refuse(cat("zero points of shape ", zeros->shape.str()));
  }
  const bool known = scales && (zeros || !e.has(kZeroPoints));
  const ValueId weights = known ? widened(e, p, *b, *scales, zeros) : computed(e, p, *b);
  const ValueId y = e.add("MatMul", 13, {e.in(kA), weights});
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
