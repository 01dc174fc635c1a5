// Expand (broadcasting to a shape) and Tile (repeating).
#include <cstring>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/copy_rows.h"
#include "engine/ops/common/strided_copy.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

void infer_expand(InferContext& c) {
  const std::vector<int64_t> wish = c.const_ints(1);
  if (wish.size() > Shape::kMaxRank) c.unsupported(cat("a shape of ", counted(wish.size(), "dimension")));
  for (int64_t d : wish) {
    if (d < 0) c.fail(cat("a target dimension of ", d));
  }
  const auto out = broadcast(c.input(0).shape, Shape(wish));
  if (!out) c.fail(cat(c.input(0).shape.str(), " does not broadcast to ", Shape(wish).str()));
  c.set_output(0, c.input(0).dtype, *out);
}

void lower_expand(LowerContext& c) {
  const Shape& out = c.output(0).shape;
  const Shape& x = c.input(0).shape;
  if (x.elements() == out.elements()) return c.alias(0, 0);
  lower_strided_copy(c, c.in(0), c.out(0), c.input(0).dtype, out, broadcast_strides(x, out));
}

struct TileParams {
  size_t rank;
  Strides dims, repeats;
  int64_t bytes;  // of an element of the last dimension
};

// Writes dimensions d and below from `from` to `to`: once, then the written block again and again. Returns the bytes
// that it read.
int64_t tile(const TileParams& p, size_t d, const std::byte* from, std::byte* to, int64_t& written, WorkMeter& meter) {
  int64_t read = 0;
  if (d + 1 == p.rank) {
    read = written = p.dims[d] * p.bytes;
    if (meter.go_on(row_nanos(read))) copy_row(to, from, read);
  } else {
    written = 0;
    for (int64_t i = 0; i < p.dims[d]; ++i) {
      int64_t part = 0;
      read += tile(p, d + 1, from + read, to + written, part, meter);
      written += part;
    }
  }
  for (int64_t i = 1; i < p.repeats[d] && meter.go_on(row_nanos(written)); ++i) copy_row(to + i * written, to, written);
  written *= p.repeats[d];
  return read;
}

void run_tile(const void* params, std::byte* const* io, const ExecContext&) {
  int64_t written = 0;
  WorkMeter meter;
  tile(*static_cast<const TileParams*>(params), 0, io[0], io[1], written, meter);
}

std::vector<int64_t> repeats_of(const NodeContext& c) {
  std::vector<int64_t> repeats = c.const_ints(1);
  if (repeats.size() != c.input(0).shape.rank()) {
    c.fail(cat(repeats.size(), " repeats for an input of shape ", c.input(0).shape.str()));
  }
  return repeats;
}

void infer_tile(InferContext& c) {
  Shape out = c.input(0).shape;
  const std::vector<int64_t> repeats = repeats_of(c);
  for (size_t i = 0; i < out.rank(); ++i) {
    if (repeats[i] < 0 || __builtin_mul_overflow(out[i], repeats[i], &out[i]))
      c.fail(cat(counted(repeats[i], "repeat")));
  }
  c.set_output(0, c.input(0).dtype, out);
}

void lower_tile(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const int64_t elements = c.output(0).shape.elements();
  if (x.shape == c.output(0).shape) return c.alias(0, 0);
  if (elements == 0) return;
  const std::vector<int64_t> repeats = repeats_of(c);
  TileParams p{};
  p.bytes = static_cast<int64_t>(dtype_size(x.dtype));
  for (size_t i = 0; i < x.shape.rank(); ++i) {
    if (p.rank > 0 && repeats[i] == 1) {  // a dimension that does not repeat belongs to the one before
      p.dims[p.rank - 1] *= x.shape[i];
    } else {
      p.dims[p.rank] = x.shape[i];
      p.repeats[p.rank++] = repeats[i];
    }
  }
  c.step(run_tile, p, {c.in(0), c.out(0)}, static_cast<double>(elements));
}

}  // namespace

void register_expand(OpRegistry& r) {
  r.add({.name = "Expand", .since = 8, .min_inputs = 2, .max_inputs = 2, .max_outputs = 1, .infer = infer_expand},
        lower_expand);
  r.add({.name = "Tile",
         .since = 6,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer_tile,
         .mixed_axes = mixed_where_sizes_change},
        lower_tile);
}

}  // namespace inferkit
