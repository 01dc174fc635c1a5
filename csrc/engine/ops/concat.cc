// Concat and Split along an axis: a step per part, rows of bytes each.
#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/copy_rows.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"

namespace inferkit {
namespace {

constexpr int64_t kGrainBytes = 1 << 18;  // worth a thread
constexpr int64_t kPieceBytes = 1 << 16;  // of a row, where there are fewer rows than threads

struct PartParams {
  int64_t rows;        // the dimensions before the axis
  int64_t part_bytes;  // of one row of the part
  int64_t full_bytes;  // of one row of the whole
  int64_t offset;      // of the part in that row
};

/// copy_rows, on several threads where there is much to copy.
void copy_part(const PartParams& p, std::byte* to, int64_t to_step, const std::byte* from, int64_t from_step,
               const ExecContext& context) {
  if (!context.pool || p.rows * p.part_bytes < 2 * kGrainBytes)
    return copy_rows(to, to_step, from, from_step, p.part_bytes, p.rows);
  const int64_t pieces = (p.part_bytes + kPieceBytes - 1) / kPieceBytes;  // of a row
  const int64_t grain = kGrainBytes / std::min(p.part_bytes, kPieceBytes);
  for_ranges(context, p.rows * pieces, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t row = i / pieces, begin = i % pieces * kPieceBytes;
      copy_row(to + row * to_step + begin, from + row * from_step + begin, std::min(kPieceBytes, p.part_bytes - begin));
    }
  });
}

void run_join(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const PartParams*>(params);
  copy_part(p, io[1] + p.offset, p.full_bytes, io[0], p.part_bytes, context);
}
void run_split(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const PartParams*>(params);
  copy_part(p, io[1], p.part_bytes, io[0] + p.offset, p.full_bytes, context);
}

/// Short parts are joined together, some rows at a time: each by itself, they would pass over the whole output as often
/// as there are parts.
constexpr int64_t kShortRow = 4096;     // bytes of the whole
constexpr int64_t kBlockBytes = 16384;  // of it that stay in L1
constexpr size_t kMostParts = 16;

struct JoinParams {
  int64_t rows, full_bytes;
  size_t count;
  struct {
    int64_t bytes, offset;
  } parts[kMostParts];
};

/// io: the output, the parts.
void run_join_short(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const JoinParams*>(params);
  const int64_t block = std::max<int64_t>(1, kBlockBytes / p.full_bytes);
  for_ranges(context, p.rows, kGrainBytes / p.full_bytes, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; row += block) {
      const int64_t rows = std::min(block, last - row);
      for (size_t i = 0; i < p.count; ++i) {
        const auto [bytes, offset] = p.parts[i];
        copy_some_rows(io[0] + row * p.full_bytes + offset, p.full_bytes, io[i + 1] + row * bytes, bytes, bytes, rows);
      }
    }
  });
}

PartParams part_params(const Shape& full, size_t axis, int64_t length, int64_t start, DType dtype) {
  const int64_t inner = full.elements(axis + 1, full.rank()) * static_cast<int64_t>(dtype_size(dtype));
  return {full.elements(0, axis), length * inner, full[axis] * inner, start * inner};
}
double part_nanos(const PartParams& p) {
  return static_cast<double>(p.rows) * (2 + static_cast<double>(p.part_bytes) / 16);
}

size_t axis_of(const NodeContext& c, int64_t fallback) {
  return static_cast<size_t>(c.attr_axis(fallback, static_cast<int64_t>(c.input(0).shape.rank())));
}

void infer_concat(InferContext& c) {
  if (c.version() >= 4 && !c.has_attr("axis")) c.fail("attribute 'axis' is missing");
  Shape out = c.input(0).shape;
  const size_t axis = axis_of(c, 1);
  for (size_t i = 1; i < c.input_count(); ++i) {
    require_same_type(c, 0, i);
    const Shape& shape = c.input(i).shape;
    bool fits = shape.rank() == out.rank();
    for (size_t d = 0; d < out.rank() && fits; ++d) fits = d == axis || shape[d] == out[d];
    if (!fits) c.fail(cat("input ", i, " of shape ", shape.str(), " does not fit ", c.input(0).shape.str()));
    out[axis] += shape[axis];
  }
  c.set_output(0, c.input(0).dtype, out);
}

void lower_concat(LowerContext& c) {
  const DType dtype = c.input(0).dtype;
  if (c.input_count() == 1) return c.alias(0, 0);
  const Shape& full = c.output(0).shape;
  const size_t axis = axis_of(c, 1);
  int64_t start = 0;
  JoinParams short_parts{};
  std::vector<Ref> refs = {c.out(0)};
  double nanos = 0;
  const auto join_short = [&] {
    if (short_parts.count > 0) c.step(run_join_short, short_parts, std::span<const Ref>(refs), nanos);
    short_parts.count = 0;
    refs.resize(1);
    nanos = 0;
  };
  for (size_t i = 0; i < c.input_count(); ++i) {
    const int64_t length = c.input(i).shape[axis];
    const PartParams p = part_params(full, axis, length, start, dtype);
    start += length;
    if (p.rows * p.part_bytes <= 0) continue;
    if (p.full_bytes > kShortRow) {
      c.step(run_join, p, {c.in(i), c.out(0)}, part_nanos(p));
      continue;
    }
    short_parts.rows = p.rows;
    short_parts.full_bytes = p.full_bytes;
    short_parts.parts[short_parts.count++] = {p.part_bytes, p.offset};
    refs.push_back(c.in(i));
    nanos += part_nanos(p);
    if (short_parts.count == kMostParts) join_short();
  }
  join_short();
}

// The lengths of the parts: given by the attribute (before 13) or input 1, else even.
std::vector<int64_t> split_lengths(const NodeContext& c, size_t axis) {
  const int64_t dim = c.input(0).shape[axis];
  const auto outputs = static_cast<int64_t>(c.node().outputs.size());
  std::vector<int64_t> lengths;
  if (c.version() >= 13 && c.has_input(1)) {
    lengths = c.const_ints(1);
  } else if (c.version() < 13 && c.has_attr("split")) {
    lengths = c.attr_ints("split");
  } else {
    if (c.version() < 18 && dim % outputs != 0) c.fail(cat("cannot split ", dim, " evenly into ", outputs));
    const int64_t chunk = (dim + outputs - 1) / outputs;
    for (int64_t i = 0; i < outputs; ++i) lengths.push_back(std::clamp<int64_t>(dim - i * chunk, 0, chunk));
  }
  int64_t sum = 0;
  for (int64_t length : lengths) {
    if (length < 0 || length > dim) c.fail(cat("a part of length ", length));
    sum += length;
  }
  if (static_cast<int64_t>(lengths.size()) != outputs || sum != dim) {
    c.fail(cat(counted(lengths.size(), "part"), " of ", sum, " in all do not fit ", counted(outputs, "output"),
               " and a dimension of ", dim));
  }
  return lengths;
}

void infer_split(InferContext& c) {
  const auto outputs = static_cast<int64_t>(c.node().outputs.size());
  const bool has_count = c.version() >= 18 && !c.has_input(1);
  if (has_count && c.attr_int("num_outputs", outputs) != outputs) {
    c.fail(cat("num_outputs is ", c.attr_int("num_outputs", outputs), ", but it has ", counted(outputs, "output")));
  }
  if (c.version() >= 13 && c.has_input(1) && c.has_attr("num_outputs")) c.fail("has both a split and num_outputs");
  const TensorFacts& x = c.input(0);
  const size_t axis = axis_of(c, 0);
  const std::vector<int64_t> lengths = split_lengths(c, axis);
  for (size_t i = 0; i < lengths.size(); ++i) {
    Shape shape = x.shape;
    shape[axis] = lengths[i];
    c.set_output(i, x.dtype, shape);
  }
}

void lower_split(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const size_t axis = axis_of(c, 0);
  const std::vector<int64_t> lengths = split_lengths(c, axis);
  if (lengths.size() == 1) return c.alias(0, 0);
  int64_t start = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const PartParams p = part_params(x.shape, axis, lengths[i], start, x.dtype);
    start += lengths[i];
    const Ref out = c.out(i);
    if (out.valid()) c.step(run_split, p, {c.in(0), out}, part_nanos(p));
  }
}

/// Of what is joined or split along the channels.
Cost blocks_cost(const NodeContext& c) {
  const bool joins = c.node().op_type == "Concat";
  if (axis_of(c, joins ? 1 : 0) != 1) return Cost::cannot("it is not along the channels");
  const Shape& full = joins ? c.output(0).shape : c.input(0).shape;
  return Cost(part_nanos(part_params(full, 1, full[1], 0, c.input(0).dtype)));
}

}  // namespace

void register_concat(OpRegistry& r) {
  // What is put behind the rows, or in front of them, changes their places.
  const auto mixed_by_concat = [](const NodeContext& c, size_t) {
    return c.input_count() > 1 ? one_axis(static_cast<int64_t>(axis_of(c, 1))) : Axes{0};
  };
  const auto mixed_by_split = [](const NodeContext& c, size_t) {
    return one_axis(c.attr_axis(0, static_cast<int64_t>(c.input(0).shape.rank())));
  };
  // Channels in front of the others are in front of them in blocks, too: what is copied is the same.
  const auto ways = [](LowerFn lower) -> std::vector<Lowering> {
    return {{.name = kOnlyLowering, .lower = lower, .alike_cost = blocks_cost}};
  };
  r.add({.name = "Concat", .min_inputs = 1, .max_outputs = 1, .infer = infer_concat, .mixed_axes = mixed_by_concat},
        ways(lower_concat));
  r.add({.name = "Split",
         .since = 2,
         .until = 12,
         .min_inputs = 1,
         .max_inputs = 1,
         .infer = infer_split,
         .mixed_axes = mixed_by_split},
        ways(lower_split));
  r.add({.name = "Split",
         .since = 13,
         .min_inputs = 1,
         .max_inputs = 2,
         .infer = infer_split,
         .mixed_axes = mixed_by_split},
        ways(lower_split));
}

}  // namespace inferkit
