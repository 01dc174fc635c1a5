// What the pass fuse_chains writes: operators of one input that follow each other, element by element, as one step. A
// piece of the input passes through all of them while it is in the first cache, and threads meet once and not after
// each. The kernels, and with them the bits, are those of the operators by themselves.
#include <algorithm>

#include "engine/compile/chain_links.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit {
namespace {

constexpr int64_t kPiece = 1024;
constexpr int64_t kGrain = 1 << 15;  // elements, times operators, that are worth a thread

struct ChainOp {
  kernels::BinaryFn binary;  // or unary, where it is null
  kernels::UnaryFn unary;
  float numbers[2];
  int a, b, to;
};

struct ChainParams {
  ChainOp ops[kMostChainLinks];
  size_t count;
  int64_t n;
};

void run_chain(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ChainParams*>(params);
  const auto* x = reinterpret_cast<const float*>(io[0]);
  auto* y = reinterpret_cast<float*>(io[1]);
  for_ranges(context, p.n, kGrain / static_cast<int64_t>(p.count), [&](int64_t first, int64_t last) {
    alignas(64) float registers[kChainRegisters][kPiece];
    for (int64_t at = first; at < last; at += kPiece) {
      const int64_t n = std::min(kPiece, last - at);
      for (size_t i = 0; i < p.count; ++i) {
        const ChainOp& op = p.ops[i];
        const auto operand = [&](int where, const float& number) {
          return where == ChainLink::kNumber ? &number : where == ChainLink::kX ? x + at : registers[where];
        };
        float* const to = op.to == ChainLink::kY ? y + at : registers[op.to];
        if (op.binary) {
          op.binary(operand(op.a, op.numbers[0]), operand(op.b, op.numbers[1]), to, n);
        } else {
          op.unary(operand(op.a, op.numbers[0]), to, n, op.numbers[0], op.numbers[1]);
        }
      }
    }
  });
}

void infer_chain(InferContext& c) {
  if (c.input(0).dtype != DType::kF32) c.wrong(cat("expected a float32 input, got ", dtype_name(c.input(0).dtype)));
  Shape out = c.input(0).shape;
  if (out.rank() == 0 && c.attr_int("rank", 0) == 1) out.push_back(1);  // as numbers that are lists of one make it
  c.set_output(0, DType::kF32, out);
}

void lower_chain(LowerContext& c) {
  using kernels::Binary, kernels::BinaryForm, kernels::Unary;
  const std::vector<ChainLink> links = chain_links(c);
  ChainParams p{};
  p.count = links.size();
  p.n = c.output(0).shape.elements();
  for (size_t i = 0; i < links.size(); ++i) {
    const ChainLink& link = links[i];
    ChainOp& op = p.ops[i];
    op.a = link.a;
    op.b = link.b;
    op.to = link.to;
    std::ranges::copy(link.numbers, op.numbers);
    const BinaryForm form = link.b == ChainLink::kNumber   ? BinaryForm::kVectorScalar
                            : link.a == ChainLink::kNumber ? BinaryForm::kScalarVector
                                                           : BinaryForm::kVectorVector;
    const auto arithmetic = [&](Binary which) { op.binary = kernels::binary_fn(which, form); };
    const auto curve = [&](Unary which) { op.unary = kernels::unary_fn(which); };
    switch (link.op) {
      case ChainLink::Op::kAdd:
        arithmetic(Binary::kAdd);
        break;
      case ChainLink::Op::kSub:
        arithmetic(Binary::kSub);
        break;
      case ChainLink::Op::kMul:
        arithmetic(Binary::kMul);
        break;
      case ChainLink::Op::kDiv:
        arithmetic(Binary::kDiv);
        break;
      case ChainLink::Op::kRelu:
        curve(Unary::kRelu);
        break;
      case ChainLink::Op::kSigmoid:
        curve(Unary::kSigmoid);
        break;
      case ChainLink::Op::kTanh:
        curve(Unary::kTanh);
        break;
      case ChainLink::Op::kClip:
        curve(Unary::kClip);
        break;
    }
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
