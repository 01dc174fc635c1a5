// Operators of one input that follow each other, element by element, as one kernel.
#include "engine/compile/chain_links.h"
#include "engine/cuda/launch.h"

namespace inferkit {
namespace cuda {
namespace {

static_assert(kMostChainLinks == device::kMostLinks && kChainRegisters == device::kLinkRegisters);
static_assert(ChainLink::kNumber == device::ChainLinkParams::kNumber && ChainLink::kX == device::ChainLinkParams::kX &&
              ChainLink::kY == device::ChainLinkParams::kY);

// The operators have the same numbers there.
static_assert(static_cast<int>(ChainLink::Op::kAdd) == static_cast<int>(device::Link::kAdd) &&
              static_cast<int>(ChainLink::Op::kSub) == static_cast<int>(device::Link::kSub) &&
              static_cast<int>(ChainLink::Op::kMul) == static_cast<int>(device::Link::kMul) &&
              static_cast<int>(ChainLink::Op::kDiv) == static_cast<int>(device::Link::kDiv) &&
              static_cast<int>(ChainLink::Op::kRelu) == static_cast<int>(device::Link::kRelu) &&
              static_cast<int>(ChainLink::Op::kSigmoid) == static_cast<int>(device::Link::kSigmoid) &&
              static_cast<int>(ChainLink::Op::kTanh) == static_cast<int>(device::Link::kTanh) &&
              static_cast<int>(ChainLink::Op::kClip) == static_cast<int>(device::Link::kClip));

/// io: x, y.
void run_device_chain(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::ChainParams*>(params);
  p.x = at<float>(io, 0);
  p.y = at<float>(io, 1);
  launch_fours(context, Kernel::chain_f32, p.n, p);
}

void lower_device_chain(LowerContext& c) {
  const std::vector<ChainLink> links = chain_links(c);
  device::ChainParams p{};
  p.n = c.output(0).shape.elements();
  p.count = static_cast<int32_t>(links.size());
  for (size_t i = 0; i < links.size(); ++i) {
    const ChainLink& link = links[i];
    p.links[i] = {{link.numbers[0], link.numbers[1]},
                  static_cast<device::Link>(link.op),
                  static_cast<int8_t>(link.a),
                  static_cast<int8_t>(link.b),
                  static_cast<int8_t>(link.to)};
  }
  c.in_place(0, 0);
  c.step(run_device_chain, p, {c.in(0), c.out(0)});
}

}  // namespace
}  // namespace cuda

void register_cuda_chain(OpRegistry& r) {
  cuda::add_light(r, kInternal, "Chain", cuda::lower_device_chain, nullptr, Precision::kFloat32);
}

}  // namespace inferkit
