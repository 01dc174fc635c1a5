// Transpose, DepthToSpace, SpaceToDepth: one strided copy each, or none where the order in memory stays.
#include <numeric>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/strided_copy.h"

namespace inferkit {
namespace {

std::vector<size_t> permutation(const NodeContext& c) {
  std::vector<int64_t> sorted = c.attr_ints("perm");
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) c.fail("perm names an axis twice");
  const size_t rank = c.input(0).shape.rank();
  std::vector<size_t> perm(rank);
  if (!c.has_attr("perm")) {
    for (size_t i = 0; i < rank; ++i) perm[i] = rank - 1 - i;
    return perm;
  }
  const std::vector<int64_t> wish = c.attr_ints("perm");
  if (wish.size() != rank)
    c.fail(cat("perm has ", counted(wish.size(), "entry", "entries"), ", the input ", counted(rank, "dimension")));
  std::vector<bool> seen(rank, false);
  for (size_t i = 0; i < rank; ++i) {
    perm[i] = static_cast<size_t>(c.resolve_axis(wish[i], static_cast<int64_t>(rank)));
    if (seen[perm[i]]) c.fail("perm names an axis twice");
    seen[perm[i]] = true;
  }
  return perm;
}

// The copy that turns a row-major tensor of shape `from` into its dimensions in the order `perm`.
void lower_permutation(LowerContext& c, const Shape& from, std::span<const size_t> perm) {
  const Strides own = from.strides();
  Shape to;
  Strides strides{};
  for (size_t i = 0; i < perm.size(); ++i) {
    to.push_back(from[perm[i]]);
    strides[i] = own[perm[i]];
  }
  if (is_identity(to, strides)) return c.alias(0, 0);
  lower_strided_copy(c, c.in(0), c.out(0), c.input(0).dtype, to, strides);
}

void infer_transpose(InferContext& c) {
  const std::vector<size_t> perm = permutation(c);
  const TensorFacts& x = c.input(0);
  Shape out;
  for (size_t axis : perm) out.push_back(x.shape[axis]);
  c.set_output(0, x.dtype, out);
}
void lower_transpose(LowerContext& c) { lower_permutation(c, c.input(0).shape, permutation(c)); }

int64_t block_size(const NodeContext& c) {
  const int64_t b = c.attr_int("blocksize", 0);
  if (b < 1 || b > (1 << 10)) c.fail(cat("blocksize ", b));
  if (c.input(0).shape.rank() != 4) c.fail(cat("the input must have 4 dimensions, not ", c.input(0).shape.str()));
  return b;
}

// mode is DCR (the block varies slowest within the channels) or CRD.
bool is_crd(const NodeContext& c) {
  const std::string mode = c.attr_string("mode", "DCR");
  if (mode != "DCR" && mode != "CRD") c.fail("mode must be DCR or CRD, not '" + mode + "'");
  return mode == "CRD";
}

void infer_depth_to_space(InferContext& c) {
  is_crd(c);
  const int64_t b = block_size(c);
  const Shape& x = c.input(0).shape;
  if (x[1] % (b * b) != 0) c.fail(cat("the number of channels, ", x[1], ", does not divide by ", b * b));
  c.set_output(0, c.input(0).dtype, {x[0], x[1] / (b * b), x[2] * b, x[3] * b});
}
void lower_depth_to_space(LowerContext& c) {
  const int64_t b = block_size(c);
  const Shape& x = c.input(0).shape;
  const int64_t depth = x[1] / (b * b);
  if (is_crd(c)) {
    lower_permutation(c, {x[0], depth, b, b, x[2], x[3]}, std::array<size_t, 6>{0, 1, 4, 2, 5, 3});
  } else {
    lower_permutation(c, {x[0], b, b, depth, x[2], x[3]}, std::array<size_t, 6>{0, 3, 4, 1, 5, 2});
  }
}

void infer_space_to_depth(InferContext& c) {
  is_crd(c);
  const int64_t b = block_size(c);
  const Shape& x = c.input(0).shape;
  if (x[2] % b != 0 || x[3] % b != 0) c.fail(cat("blocks of ", b, " do not divide ", x.str()));
  c.set_output(0, c.input(0).dtype, {x[0], x[1] * b * b, x[2] / b, x[3] / b});
}
void lower_space_to_depth(LowerContext& c) {
  const int64_t b = block_size(c);
  const Shape& x = c.input(0).shape;
  const Shape split{x[0], x[1], x[2] / b, b, x[3] / b, b};
  if (is_crd(c)) {
    lower_permutation(c, split, std::array<size_t, 6>{0, 1, 3, 5, 2, 4});
  } else {
    lower_permutation(c, split, std::array<size_t, 6>{0, 3, 5, 1, 2, 4});
  }
}

void add(OpRegistry& r, std::string_view name, InferFn infer, LowerFn lower, decltype(OpSchema::mixed_axes) mixed) {
  r.add({.name = name, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer, .mixed_axes = mixed}, lower);
}

}  // namespace

void register_transpose(OpRegistry& r) {
  add(r, "Transpose", infer_transpose, lower_transpose, nullptr);
  add(r, "DepthToSpace", infer_depth_to_space, lower_depth_to_space, behind_first_axis);
  add(r, "SpaceToDepth", infer_space_to_depth, lower_space_to_depth, behind_first_axis);
}

}  // namespace inferkit
