// Arithmetic, logic and reductions of integers and bools.
#include "engine/cuda/integers.h"

namespace inferkit {
namespace cuda {
namespace {

using device::Whole;
using device::WholeUnary;

/// io: a, b, y.
void run_whole(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::WholeParams*>(params);
  p.a = io[0];
  p.b = io[1];
  p.y = io[2];
  p.fault = context.queue->fault();
  p.step = context.queue->step() | LaunchQueue::kDividesByZero;
  launch_elements(context, Kernel::binary_whole, p.nest.n, p);
}

/// io: x, y.
void run_whole_unary(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::WholeUnaryParams*>(params);
  p.x = io[0];
  p.y = io[1];
  launch_elements(context, Kernel::unary_whole, p.n, p);
}

/// io: x, y.
void run_whole_reduce(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::WholeReduceParams*>(params);
  p.x = io[0];
  p.y = io[1];
  launch_rows(context, Kernel::reduce_whole, p.kept.n, p);
}

Cost bool_cost(const NodeContext& c) {
  return c.input(0).dtype == DType::kBool ? Cost(0) : Cost::cannot("it takes bools alone");
}
Cost whole_cost(const NodeContext& c) {
  return is_whole(c.input(0).dtype) ? Cost(0) : Cost::cannot("it takes int32 and int64 alone");
}

template <Whole op>
void lower_binary_whole(LowerContext& c) {
  lower_whole(c, op);
}
template <WholeUnary op>
void lower_unary_whole(LowerContext& c) {
  lower_whole(c, op);
}
void lower_mod(LowerContext& c) {
  lower_whole(c, c.attr_int("fmod", 0) != 0 ? Whole::kTruncatedMod : Whole::kFlooredMod);
}

}  // namespace

void lower_whole(LowerContext& c, Whole op) {
  for (size_t i = 0; i < 2; ++i) {
    if (c.input(i).shape == c.output(0).shape) c.in_place(0, i);
  }
  device::WholeParams p{};
  p.nest = broadcast_nest<2>(c);
  p.type = element_of(c, c.input(0).dtype);
  p.op = op;
  c.step(run_whole, p, {c.in(0), c.in(1), c.out(0)});
}

void lower_whole(LowerContext& c, WholeUnary op) {
  c.in_place(0, 0);
  device::WholeUnaryParams p{};
  p.n = c.output(0).shape.elements();
  p.type = element_of(c, c.input(0).dtype);
  p.op = op;
  c.step(run_whole_unary, p, {c.in(0), c.out(0)});
}

void lower_whole(LowerContext& c, device::WholeReduce op, const device::Nest<1>& kept, const device::Nest<1>& reduced) {
  device::WholeReduceParams p{};
  p.kept = kept;
  p.reduced = reduced;
  p.type = element_of(c, c.input(0).dtype);
  p.op = op;
  c.step(run_whole_reduce, p, {c.in(0), c.out(0)});
}

}  // namespace cuda

void register_cuda_integers(OpRegistry& r) {
  using namespace cuda;
  add_light(r, kOnnx, "And", lower_binary_whole<Whole::kAnd>, bool_cost);
  add_light(r, kOnnx, "Or", lower_binary_whole<Whole::kOr>, bool_cost);
  add_light(r, kOnnx, "Xor", lower_binary_whole<Whole::kXor>, bool_cost);
  add_light(r, kOnnx, "Not", lower_unary_whole<WholeUnary::kNot>, bool_cost);
  add_light(r, kOnnx, "BitwiseAnd", lower_binary_whole<Whole::kAnd>, whole_cost);
  add_light(r, kOnnx, "BitwiseOr", lower_binary_whole<Whole::kOr>, whole_cost);
  add_light(r, kOnnx, "BitwiseXor", lower_binary_whole<Whole::kXor>, whole_cost);
  add_light(r, kOnnx, "BitwiseNot", lower_unary_whole<WholeUnary::kInvert>, whole_cost);
  add_light(r, kOnnx, "Mod", lower_mod, whole_cost);
}

}  // namespace inferkit
