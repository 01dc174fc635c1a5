// Operators that move no data: Reshape, Flatten, Squeeze, Unsqueeze, ExpandDims, Identity, Shape, Size.
#include <algorithm>

#include "base/counted.h"
#include "engine/compile/expand.h"
#include "engine/ops/dispatch.h"

namespace inferkit {
namespace {

void lower_alias(LowerContext& c) { c.alias(0, 0); }

void infer_identity(InferContext& c) { c.set_output(0, c.input(0).dtype, c.input(0).shape); }

void infer_reshape(InferContext& c) {
  const TensorFacts& x = c.input(0);
  const std::vector<int64_t> wish = c.version() < 5 ? c.attr_ints("shape") : c.const_ints(1);
  const bool keep_zero = c.attr_int("allowzero", 0) != 0;
  if (wish.size() > Shape::kMaxRank) c.unsupported(cat("a shape of ", counted(wish.size(), "dimension")));
  Shape out;
  int free = -1;
  int64_t known = 1;
  for (size_t i = 0; i < wish.size(); ++i) {
    int64_t d = wish[i];
    if (d == 0 && !keep_zero) {
      if (i >= x.shape.rank()) c.fail(cat("dimension ", i, " is copied from an input of shape ", x.shape.str()));
      d = x.shape[i];
    }
    if (d < -1 || (d == -1 && free >= 0)) c.fail("the target shape is not valid");
    if (d == -1) {
      free = static_cast<int>(i);
    } else if (__builtin_mul_overflow(known, d, &known)) {
      c.fail("the target shape is too large");
    }
    out.push_back(d);
  }
  const int64_t total = x.shape.elements();
  if (free >= 0) {
    if (known == 0 ? total != 0 : total % known != 0) {
      c.fail(cat("cannot reshape ", x.shape.str(), " to ", out.str(), " (None is free)"));
    }
    out[static_cast<size_t>(free)] = known == 0 ? 0 : total / known;
  } else if (known != total) {
    c.fail(cat("cannot reshape ", x.shape.str(), " to ", out.str()));
  }
  c.set_output(0, x.dtype, out);
}

void infer_flatten(InferContext& c) {
  const TensorFacts& x = c.input(0);
  const auto rank = static_cast<int64_t>(x.shape.rank());
  int64_t axis = c.attr_int("axis", 1);
  if (axis < -rank || axis > rank) c.fail(cat("axis ", axis, " is out of range for ", counted(rank, "dimension")));
  if (axis < 0) axis += rank;
  const auto split = static_cast<size_t>(axis);
  c.set_output(0, x.dtype, {x.shape.elements(0, split), x.shape.elements(split, x.shape.rank())});
}

std::vector<int64_t> axes_of(InferContext& c) {
  return c.version() >= 13 ? (c.has_input(1) ? c.const_ints(1) : std::vector<int64_t>{}) : c.attr_ints("axes");
}

void infer_squeeze(InferContext& c) {
  const TensorFacts& x = c.input(0);
  const auto rank = static_cast<int64_t>(x.shape.rank());
  std::vector<bool> drop(x.shape.rank(), false);
  const bool given = c.version() >= 13 ? c.has_input(1) : c.has_attr("axes");
  for (int64_t axis : axes_of(c)) {
    const auto i = static_cast<size_t>(c.resolve_axis(axis, rank));
    if (x.shape[i] != 1) c.fail(cat("axis ", axis, " of ", x.shape.str(), " is not 1"));
    drop[i] = true;
  }
  Shape out;
  for (size_t i = 0; i < x.shape.rank(); ++i) {
    if (given ? !drop[i] : x.shape[i] != 1) out.push_back(x.shape[i]);
  }
  c.set_output(0, x.dtype, out);
}

void infer_unsqueeze(InferContext& c) {
  const TensorFacts& x = c.input(0);
  std::vector<int64_t> axes = axes_of(c);
  const auto rank = static_cast<int64_t>(x.shape.rank() + axes.size());
  for (int64_t& axis : axes) axis = c.resolve_axis(axis, rank);
  std::sort(axes.begin(), axes.end());
  if (std::adjacent_find(axes.begin(), axes.end()) != axes.end()) c.fail("an axis is named twice");
  Shape out = x.shape;
  for (int64_t axis : axes) out.insert(static_cast<size_t>(axis), 1);
  c.set_output(0, x.dtype, out);
}

/// The axis is one int32.
void expand_dims(Expansion& e) {
  const ValueId axis = e.add("Cast", 13, {e.in(1)}, {{"to", int64_t{7}}});  // int64
  e.give(0, e.add("Unsqueeze", 13, {e.in(0), e.add("Reshape", 14, {axis, e.integers({1})})}));
}

void infer_shape(InferContext& c) {
  const Shape& shape = c.input(0).shape;
  const auto rank = static_cast<int64_t>(shape.rank());
  auto bound = [&](std::string_view name, int64_t fallback) {
    int64_t v = c.attr_int(name, fallback);
    if (v < 0) v += rank;
    return std::clamp<int64_t>(v, 0, rank);
  };
  const int64_t start = bound("start", 0), end = std::max(bound("end", rank), start);
  const auto dims = shape.dims().subspan(static_cast<size_t>(start), static_cast<size_t>(end - start));
  c.set_constant(0, make_tensor<int64_t>({end - start}, dims));
}

void infer_size(InferContext& c) {
  const int64_t count = c.input(0).shape.elements();
  c.set_constant(0, make_tensor<int64_t>({}, {&count, 1}));
}

}  // namespace

void register_reshape(OpRegistry& r) {
  r.add({.name = "Identity", .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_identity}, lower_alias);
  r.add({.name = "Reshape", .min_inputs = 1, .max_inputs = 2, .max_outputs = 1, .infer = infer_reshape}, lower_alias);
  r.add({.name = "Flatten", .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_flatten}, lower_alias);
  r.add({.name = "Squeeze", .min_inputs = 1, .max_inputs = 2, .max_outputs = 1, .infer = infer_squeeze}, lower_alias);
  r.add({.name = "Unsqueeze", .min_inputs = 1, .max_inputs = 2, .max_outputs = 1, .infer = infer_unsqueeze},
        lower_alias);
  add_expanded(r, {.domain = kMicrosoft, .name = "ExpandDims", .min_inputs = 2, .max_inputs = 2, .max_outputs = 1},
               expand_dims);
  r.add({.name = "Shape", .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_shape}, nullptr);
  r.add({.name = "Size", .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_size}, nullptr);
}

}  // namespace inferkit
