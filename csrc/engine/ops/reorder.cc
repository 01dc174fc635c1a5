// Tensors that change between planes and blocks of sixteen channels: what the compiler puts between nodes that read and
// write different layouts. No node of a graph stands for it.
#include "engine/compile/layouts.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/conv/conv.h"

namespace inferkit {
namespace {

constexpr int64_t kParallelElements = 1 << 16;  // fewer are one thread's
constexpr int kMostSlots = 16;

struct ReorderParams {
  int64_t blocks, area;  // of all images; of a plane
  bool to_blocks;
};

/// io: y, x.
void run_reorder(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ReorderParams*>(params);
  const auto& kernels = kernels::conv_kernels();
  const int64_t each = p.area * kBlockChannels;
  const int slots = p.blocks * each < kParallelElements ? 1 : kMostSlots;
  for_tasks(context, p.blocks, slots, [&](int64_t block, int64_t) {
    const float* x = reinterpret_cast<const float*>(io[1]) + block * each;
    float* y = reinterpret_cast<float*>(io[0]) + block * each;
    if (!p.to_blocks) return kernels.blocks_to_planes({x, p.area, kBlockChannels, y, p.area});
    kernels::BlocksCopyArgs a;
    a.x = x;
    a.to = y;
    a.w.in = a.w.out = a.width = a.plane = p.area;
    a.rows = 1;
    kernels.blocks_copy(a);
  });
}

void add_reorder(LowerContext& c, const Shape& shape, Ref from, Ref to, Layout layout) {
  const int64_t blocks = shape[0] * shape[1] / kBlockChannels;
  const ReorderParams p{blocks, shape.elements() / (blocks * kBlockChannels), layout == Layout::kBlocks};
  c.step(run_reorder, p, {to, from}, reorder_nanos(shape));
}

}  // namespace

void register_reorder(OpRegistry& r) { r.set_reorder(add_reorder); }

}  // namespace inferkit
