// What the pass fuse_chains writes: operators of one input that follow each other, element by element, as one step. A
// piece of the input passes through all of them while it is in the first cache, and threads meet once and not after
// each. The kernels, and with them the bits, are those of the operators by themselves.
#include <algorithm>

#include "engine/compile/op_registry.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit {
namespace {

constexpr size_t kMostOps = 16;  // as the pass has it
constexpr int64_t kPiece = 1024;
constexpr int kRegisters = 6;        // pieces of values that are still to be read
constexpr int64_t kGrain = 1 << 15;  // elements, times operators, that are worth a thread

// Where an operand is: a register from 0 on, or one of these.
constexpr int kNumber = -1, kX = -2, kY = -3;

struct ChainOp {
  kernels::BinaryFn binary;  // or unary, where it is null
  kernels::UnaryFn unary;
  float numbers[2];
  int a, b, to;
};

struct ChainParams {
  ChainOp ops[kMostOps];
  size_t count;
  int64_t n;
};

void run_chain(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ChainParams*>(params);
  const auto* x = reinterpret_cast<const float*>(io[0]);
  auto* y = reinterpret_cast<float*>(io[1]);
  for_ranges(context, p.n, kGrain / static_cast<int64_t>(p.count), [&](int64_t first, int64_t last) {
    alignas(64) float registers[kRegisters][kPiece];
    for (int64_t at = first; at < last; at += kPiece) {
      const int64_t n = std::min(kPiece, last - at);
      for (size_t i = 0; i < p.count; ++i) {
        const ChainOp& op = p.ops[i];
        const auto operand = [&](int where, const float& number) {
          return where == kNumber ? &number : where == kX ? x + at : registers[where];
        };
        float* const to = op.to == kY ? y + at : registers[op.to];
        if (op.binary) {
          op.binary(operand(op.a, op.numbers[0]), operand(op.b, op.numbers[1]), to, n);
        } else {
          op.unary(operand(op.a, op.numbers[0]), to, n, op.numbers[0], op.numbers[1]);
        }
      }
    }
  });
}

kernels::Unary unary_of(const NodeContext& c, std::string_view op) {
  using kernels::Unary;
  if (op == "Relu") return Unary::kRelu;
  if (op == "Sigmoid") return Unary::kSigmoid;
  if (op == "Tanh") return Unary::kTanh;
  if (op != "Clip") c.fail(cat("a chain has no ", op));
  return Unary::kClip;
}

void infer_chain(InferContext& c) {
  if (c.input(0).dtype != DType::kF32) c.wrong(cat("expected a float32 input, got ", dtype_name(c.input(0).dtype)));
  Shape out = c.input(0).shape;
  if (out.rank() == 0 && c.attr_int("rank", 0) == 1) out.push_back(1);  // as numbers that are lists of one make it
  c.set_output(0, DType::kF32, out);
}

void lower_chain(LowerContext& c) {
  using kernels::Binary, kernels::BinaryForm;
  const auto ops = c.attr_strings("ops");
  const auto reads = c.attr_ints("reads");
  const auto numbers = c.attr_floats("numbers");
  if (ops.empty() || ops.size() > kMostOps || reads.size() != 2 * ops.size() || numbers.size() != reads.size())
    c.fail("its operators and what they read do not fit each other");
  // The last operator that reads each value, which are x and then what each of them gives.
  std::vector<size_t> last_read(ops.size() + 1);
  for (size_t i = 0; i < reads.size(); ++i) {
    if (reads[i] >= 0) last_read[static_cast<size_t>(reads[i])] = i / 2;
  }
  ChainParams p{};
  p.count = ops.size();
  p.n = c.output(0).shape.elements();
  std::vector<int> where(ops.size() + 1, kX);
  bool used[kRegisters] = {};
  for (size_t i = 0; i < ops.size(); ++i) {
    ChainOp& op = p.ops[i];
    const auto place = [&](int64_t read) { return read < 0 ? kNumber : where[static_cast<size_t>(read)]; };
    op.a = place(reads[2 * i]);
    op.b = place(reads[2 * i + 1]);
    std::copy_n(numbers.begin() + static_cast<std::ptrdiff_t>(2 * i), 2, op.numbers);
    constexpr std::pair<std::string_view, Binary> kArithmetic[] = {
        {"Add", Binary::kAdd}, {"Sub", Binary::kSub}, {"Mul", Binary::kMul}, {"Div", Binary::kDiv}};
    const auto found = std::ranges::find(kArithmetic, ops[i], &std::pair<std::string_view, Binary>::first);
    if (found != std::end(kArithmetic)) {
      op.binary = kernels::binary_fn(found->second, op.b == kNumber   ? BinaryForm::kVectorScalar
                                                    : op.a == kNumber ? BinaryForm::kScalarVector
                                                                      : BinaryForm::kVectorVector);
    } else {
      op.unary = kernels::unary_fn(unary_of(c, ops[i]));
    }
    for (size_t v = 1; v <= i; ++v) {  // who was read for the last time leaves its register, to this result at once
      if (where[v] < 0 || last_read[v] > i) continue;
      used[where[v]] = false;
      where[v] = kNumber;  // nobody's any more
    }
    if (i + 1 == ops.size()) {
      op.to = kY;
      break;
    }
    const auto free = std::find(std::begin(used), std::end(used), false);
    if (free == std::end(used)) c.fail("it holds too many values at once");
    *free = true;
    op.to = where[i + 1] = static_cast<int>(free - std::begin(used));
  }
  c.in_place(0, 0);
  c.step(run_chain, p, {c.in(0), c.out(0)}, static_cast<double>(p.n) * (0.05 + 0.03 * static_cast<double>(p.count)));
}

}  // namespace

void register_chain(OpRegistry& r) {
  r.add(
      {.domain = kInternal, .name = "Chain", .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_chain},
      lower_chain);
}

}  // namespace inferkit
