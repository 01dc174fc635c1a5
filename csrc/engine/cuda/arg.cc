// ArgMax and ArgMin.
#include "engine/cuda/launch.h"

namespace inferkit {
namespace cuda {
namespace {

/// io: x, y.
void run_arg(const void* params, std::byte* const* io, const ExecContext& context) {
  auto p = *static_cast<const device::ArgParams*>(params);
  p.x = io[0];
  p.y = at<int64_t>(io, 1);
  launch_rows(context, Kernel::arg_rows, p.outer * p.inner, p);
}

Cost arg_cost(const NodeContext& c) {
  Element type{};
  if (find_element(c.input(0).dtype, type) && type != Element::kBool) return Cost(0);
  return Cost::cannot("it takes float32, int32 and int64 alone");
}

template <bool kLeast>
void lower_arg(LowerContext& c) {
  const Shape& x = c.input(0).shape;
  const auto axis = static_cast<size_t>(c.attr_axis(0, static_cast<int64_t>(x.rank())));
  device::ArgParams p{};
  p.outer = x.elements(0, axis);
  p.n = x[axis];
  p.inner = x.elements(axis + 1, x.rank());
  p.type = element_of(c, c.input(0).dtype);
  p.least = kLeast;
  p.last = c.version() >= 12 && c.attr_int("select_last_index", 0) != 0;
  c.step(run_arg, p, {c.in(0), c.out(0)});
}

}  // namespace
}  // namespace cuda

void register_cuda_arg(OpRegistry& r) {
  using namespace cuda;
  add_light(r, kOnnx, "ArgMax", lower_arg<false>, arg_cost);
  add_light(r, kOnnx, "ArgMin", lower_arg<true>, arg_cost);
}

}  // namespace inferkit
