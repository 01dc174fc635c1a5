// Attention as one kernel: what engine/compile/fuse_attention.cc writes.
#include "engine/cuda/launch.h"
#include "kernels/summation.h"

namespace inferkit {
namespace cuda {
namespace {

using device::AttentionParams;
using device::AttentionScale;

struct AttentionStep {
  AttentionParams p;
  int64_t from[5];  // of q, k, v, mask, y: where they begin, in elements
  int rows_of_warp;
};

/// Finds the rows of a warp, which read less for each sum where they are many, and give every multiprocessor something
/// to do where they are few; and the longest piece of the keys that shared memory has room for. Of no rows, where it
/// has none for the scores.
void cut(AttentionStep& step) {
  AttentionParams& p = step.p;
  constexpr auto kChunk = static_cast<int32_t>(kernels::kEvenChunk);
  for (const int rows : {2, 4, 8}) {
    const int64_t block = rows * device::kAttentionWarps, blocks = (p.rows + block - 1) / block * p.batch.n;
    if (step.rows_of_warp > 0 && blocks < kEnoughBlocks) break;
    for (const int32_t piece : {4 * kChunk, 2 * kChunk, kChunk}) {
      AttentionParams tried = p;
      tried.piece = std::min(piece, p.keys);
      if (device::attention_shared(rows, tried) > device::kMostShared) continue;
      p.piece = tried.piece;
      step.rows_of_warp = rows;
      break;
    }
  }
}

AttentionStep step_of(const NodeContext& c) {
  AttentionStep step{};
  AttentionParams& p = step.p;
  const Shape batch(c.attr_ints("batch"));
  const auto sizes = c.attr_ints("sizes");
  p.rows = sizes[0];
  p.keys = static_cast<int32_t>(sizes[1]);
  p.size = static_cast<int32_t>(sizes[2]);
  p.value_size = static_cast<int32_t>(sizes[3]);
  p.line = device::attention_line(p.size, p.value_size);
  const std::string how = c.attr_string("scaled", "");
  p.how = how == "Mul" ? AttentionScale::kMultiply : how == "Div" ? AttentionScale::kDivide : AttentionScale::kNone;
  p.scale = c.attr_float("scale", 1);
  std::array<Strides, 5> strides{};
  int64_t v_col = 0;  // 1
  int64_t* const inner[][2] = {
      {&p.q_row, &p.q_col}, {&p.k_row, &p.k_col}, {&p.v_row, &v_col}, {&p.mask_row, &p.mask_col}, {&p.y_row, &p.y_col}};
  constexpr std::string_view kNames[] = {"q", "k", "v", "mask", "y"};
  for (size_t i = 0; i < std::size(kNames); ++i) {
    const auto list = c.attr_ints(kNames[i]);
    if (list.empty()) continue;
    step.from[i] = list[0];
    std::copy(list.begin() + 1, list.end() - 2, strides[i].begin());
    *inner[i][0] = list[list.size() - 2];
    *inner[i][1] = list.back();
  }
  p.batch = nest_of(make_nest<5>(batch, strides));
  cut(step);
  return step;
}

Cost attention_cost(const NodeContext& c) {
  const auto sizes = c.attr_ints("sizes");
  for (const int64_t terms : {sizes[1], sizes[2]}) {
    if (kernels::computed_chunk(terms) != kernels::kEvenChunk) return Cost::cannot("its sums have longer chunks");
  }
  if (sizes[3] > device::kMostValueSize) return Cost::cannot("its values have more columns than a warp sums");
  return step_of(c).rows_of_warp > 0 ? Cost(0) : Cost::cannot("shared memory does not hold the scores of a block");
}

/// io: q, k, v, mask, y.
void run_attention(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& step = *static_cast<const AttentionStep*>(params);
  AttentionParams p = step.p;
  const auto place = [&](size_t i) { return at<float>(io, i) + step.from[i]; };
  p.q = place(0);
  p.k = place(1);
  p.v = place(2);
  p.mask = io[3] ? place(3) : nullptr;
  p.y = place(4);
  const int64_t block = step.rows_of_warp * device::kAttentionWarps;
  const Kernel kernel = step.rows_of_warp == 2   ? Kernel::attention_2
                        : step.rows_of_warp == 4 ? Kernel::attention_4
                                                 : Kernel::attention_8;
  launch(context, kernel, {(p.rows + block - 1) / block, 1, p.batch.n}, device::kAttentionThreads,
         device::attention_shared(step.rows_of_warp, p), p);
}

void lower_attention(LowerContext& c) {
  c.step(run_attention, step_of(c), {c.in(0), c.in(1), c.in(2), c.has_input(3) ? c.in(3) : Ref{}, c.out(0)});
}

}  // namespace
}  // namespace cuda

void register_cuda_attention(OpRegistry& r) {
  r.add({.domain = kInternal, .name = "Attention", .min_inputs = 3, .max_inputs = 4, .max_outputs = 1},
        std::vector<Lowering>{{.name = cuda::kLowering,
                               .lower = cuda::lower_attention,
                               .cost = cuda::attention_cost,
                               .precision = Precision::kFloat32,
                               .device = DeviceKind::kCuda}});
}

}  // namespace inferkit
