// Slice: starts, ends, axes and steps as attributes (before opset 10) or as inputs that must be constant.
#include "engine/compile/op_registry.h"
#include "engine/ops/common/strided_copy.h"

namespace inferkit {
namespace {

struct Selection {
  Shape shape;
  Strides strides{};  // in elements of the input
  int64_t offset = 0;
};

/// As numpy: negative positions count from the end, and what is out of range is cut off.
Selection select(const NodeContext& c) {
  const Shape& x = c.input(0).shape;
  const auto rank = static_cast<int64_t>(x.rank());
  const bool inputs = c.version() >= 10;
  const std::vector<int64_t> starts = inputs ? c.const_ints(1) : c.attr_ints("starts");
  const std::vector<int64_t> ends = inputs ? c.const_ints(2) : c.attr_ints("ends");
  const bool has_axes = inputs ? c.has_input(3) : c.has_attr("axes");
  std::vector<int64_t> axes = !has_axes ? std::vector<int64_t>{} : inputs ? c.const_ints(3) : c.attr_ints("axes");
  std::vector<int64_t> steps = inputs && c.has_input(4) ? c.const_ints(4) : std::vector<int64_t>(starts.size(), 1);
  if (!has_axes) {
    for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size()) {
    c.fail("starts, ends, axes and steps differ in length");
  }
  Selection s{x, x.strides(), 0};
  std::vector<bool> seen(x.rank(), false);
  for (size_t i = 0; i < starts.size(); ++i) {
    const auto axis = static_cast<size_t>(c.resolve_axis(axes[i], rank));
    if (seen[axis]) c.fail(cat("axis ", axes[i], " is named twice"));
    seen[axis] = true;
    const int64_t dim = x[axis];
    constexpr int64_t kFar = int64_t{1} << 62;  // no dimension is longer
    const int64_t step = std::clamp(steps[i], -kFar, kFar);
    if (step == 0) c.fail("a step of 0");
    const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? dim : dim - 1;
    const auto bound = [&](int64_t v) { return std::clamp(v < 0 ? v + dim : v, low, std::max(low, high)); };
    const int64_t start = std::max<int64_t>(bound(starts[i]), 0), end = bound(ends[i]);
    int64_t count = step > 0 ? (end - start + step - 1) / step : (start - end - step - 1) / -step;
    if (dim == 0 || (step > 0 ? end <= start : end >= start)) count = 0;
    s.offset += start * s.strides[axis];
    s.strides[axis] *= count > 1 ? step : 1;
    s.shape[axis] = count;
  }
  if (s.shape.elements() == 0) s.offset = 0;
  return s;
}

/// Where the elements of an axis get another place, or some of them go: only what is taken whole, or in steps that its
/// length is a multiple of (of what had several elements for each row), is as it was.
Axes mixed_by_slice(const NodeContext& c, size_t i) {
  if (i != 0) return 0;
  const Selection s = select(c);
  const Shape& x = c.input(0).shape;
  const auto strides = x.strides();
  Axes out = 0;
  for (size_t axis = 0; axis < x.rank(); ++axis) {
    const int64_t step = strides[axis] == 0 ? 1 : s.strides[axis] / strides[axis];
    const bool moved = step < 1 || (step == 1 ? s.shape[axis] != x[axis] : s.shape[axis] * step != x[axis]);
    if (moved) out = static_cast<Axes>(out | one_axis(static_cast<int64_t>(axis)));
  }
  return out;
}

void infer_slice(InferContext& c) { c.set_output(0, c.input(0).dtype, select(c).shape); }

void lower_slice(LowerContext& c) {
  const Selection s = select(c);
  if (s.shape == c.input(0).shape && is_identity(s.shape, s.strides, s.offset)) return c.alias(0, 0);
  lower_strided_copy(c, c.in(0), c.out(0), c.input(0).dtype, s.shape, s.strides, s.offset);
}

}  // namespace

void register_slice(OpRegistry& r) {
  r.add({.name = "Slice",
         .until = 9,
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_slice,
         .mixed_axes = mixed_by_slice},
        lower_slice);
  r.add({.name = "Slice",
         .since = 10,
         .min_inputs = 3,
         .max_inputs = 5,
         .max_outputs = 1,
         .infer = infer_slice,
         .mixed_axes = mixed_by_slice},
        lower_slice);
}

}  // namespace inferkit
