// Pad of all modes, by tables of where each dimension comes from.
#include "engine/compile/pad_shape.h"
#include "engine/cuda/launch.h"

namespace inferkit {
namespace cuda {
namespace {

Cost pad_cost(const NodeContext& c) {
  const DType dtype = c.input(0).dtype;
  if (dtype == DType::kString || dtype_size(dtype) > 8) return Cost::cannot("it pads strings, or elements of 16 bytes");
  if (c.version() < 11 && c.attr_float("value", 0) != 0) return Cost::cannot("its value is an attribute, and not 0");
  return Cost(0);
}

/// io: x, index, value (may be missing), y.
void run_pick(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::PickParams*>(params);
  p.x = io[0];
  p.index = at<int64_t>(io, 1);
  p.fill = io[2];
  p.y = io[3];
  launch_elements(context, Kernel::pick, p.n, p);
}

void lower_pad(LowerContext& c) {
  const Shape &x = c.input(0).shape, &out = c.output(0).shape;
  const PadMode mode = pad_mode(c);
  const Pads pads = pads_of(c);
  if (out.elements() == 0) return;
  device::PickParams p{};
  p.n = out.elements();
  p.rank = static_cast<int32_t>(out.rank());
  p.width = static_cast<int32_t>(dtype_size(c.input(0).dtype));
  const Strides strides = x.strides();
  auto index = std::make_shared<std::vector<int64_t>>();
  for (size_t d = 0; d < out.rank(); ++d) {
    // Negative pads cut first; the rest repeats what is left.
    const int64_t before = std::max<int64_t>(pads.before[d], 0), cut = std::max<int64_t>(-pads.before[d], 0);
    const int64_t left = std::max<int64_t>(x[d] - cut - std::max<int64_t>(-pads.after[d], 0), 0);
    if (left == 0 && mode != PadMode::kConstant) c.fail(cat("nothing to repeat along dimension ", d));
    p.dims[d] = out[d];
    p.strides[d] = strides[d];
    p.table[d] = static_cast<int64_t>(index->size());
    for (int64_t i = 0; i < out[d]; ++i) {
      const int64_t from = pad_source(mode, i - before, left);
      index->push_back(from < 0 ? -1 : cut + from);
    }
  }
  const Ref table = c.constant(index->data(), index, index->size() * sizeof(int64_t));
  c.step(run_pick, p, {c.in(0), table, c.version() >= 11 ? c.in(2) : Ref{}, c.out(0)});
}

}  // namespace
}  // namespace cuda

void register_cuda_pad(OpRegistry& r) {
  using namespace cuda;
  add(r, kOnnx, "Pad", lower_pad, pad_cost);
}

}  // namespace inferkit
