// Compress and NonZero, whose shapes depend on data: they run as dynamic steps where that data is not constant.
// ReverseSequence.
#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/copy_rows.h"
#include "engine/ops/dispatch.h"
#include "graph/passes/pattern.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

/// visit(i) for the positions that the condition, whose value is known, picks of `size`.
template <class Visit>
void for_picked(const NodeContext& c, int64_t size, const Visit& visit) {
  const TensorFacts& condition = c.input(1);
  if (condition.dtype != DType::kBool) c.wrong("the condition must be a bool vector");
  if (condition.shape.rank() != 1) c.fail("the condition must be a bool vector");
  const Tensor& value = c.known_value(1);
  WorkMeter meter;
  for (int64_t i = 0; i < condition.shape[0]; ++i) {
    meter.spend(2);
    if (!value.as<bool>()[i]) continue;
    if (i >= size) c.fail(cat("the condition picks ", i, " of a dimension of ", size));
    visit(i);
  }
}
int64_t count_picked(const NodeContext& c, int64_t size) {
  int64_t count = 0;
  for_picked(c, size, [&](int64_t) { ++count; });
  return count;
}

struct CompressParams {
  int64_t outer, dim, count, row_bytes;
};
void run_compress(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const CompressParams*>(params);
  const auto* places = reinterpret_cast<const int64_t*>(io[1]);
  std::byte* to = io[2];
  WorkMeter meter;
  for_line_blocks(meter, p.outer, p.count, row_nanos(p.row_bytes), [&](int64_t o, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i, to += p.row_bytes) {
      copy_row(to, io[0] + (o * p.dim + places[i]) * p.row_bytes, p.row_bytes);
    }
  });
}

// Without an axis the input is one vector.
Shape compress_view(const NodeContext& c, size_t& axis) {
  const Shape& x = c.input(0).shape;
  axis = c.has_attr("axis") ? static_cast<size_t>(c.attr_axis(0, static_cast<int64_t>(x.rank()))) : 0;
  return c.has_attr("axis") ? x : Shape{x.elements()};
}

void infer_compress(InferContext& c) {
  size_t axis = 0;
  Shape out = compress_view(c, axis);
  out[axis] = count_picked(c, out[axis]);
  c.set_output(0, c.input(0).dtype, out);
}

void lower_compress(LowerContext& c) {
  const DType dtype = c.input(0).dtype;
  size_t axis = 0;
  const Shape x = compress_view(c, axis);
  const auto places = std::make_shared<std::vector<int64_t>>();
  for_picked(c, x[axis], [&](int64_t i) { places->push_back(i); });
  const CompressParams p{x.elements(0, axis), x[axis], static_cast<int64_t>(places->size()),
                         x.elements(axis + 1, x.rank()) * static_cast<int64_t>(dtype_size(dtype))};
  c.step(run_compress, p, {c.in(0), c.constant(places->data(), places), c.out(0)},
         multiplied(p.outer, p.count) * (2 + static_cast<double>(p.row_bytes) / 16));
}

/// Between two plans nothing is kept of the condition: its memory counts, and that of a list of places would not.
std::vector<Tensor> compress_values(const NodeContext& c, DynamicContext& run) {
  size_t axis = 0;
  Shape shape = compress_view(c, axis);
  const int64_t size = shape[axis], outer = shape.elements(0, axis), count = count_picked(c, size);
  const int64_t row_bytes = shape.elements(axis + 1, shape.rank()) * static_cast<int64_t>(dtype_size(c.input(0).dtype));
  shape[axis] = count;
  run.spend(outer * (2 * size + count * row_nanos(row_bytes)));
  void* data = nullptr;
  Tensor out = run.allocate(c.input(0).dtype, shape, &data);
  const auto* from = static_cast<const std::byte*>(c.known_value(0).data);
  auto* to = static_cast<std::byte*>(data);
  WorkMeter meter;
  for (int64_t o = 0; o < outer && out.bytes() != 0; ++o) {
    for_picked(c, size, [&](int64_t i) {
      meter.spend(row_nanos(row_bytes));
      copy_row(to, from + (o * size + i) * row_bytes, row_bytes);
      to += row_bytes;
    });
  }
  return {out};
}

/// visit(i) for the elements of a known value that are not zero; of strings, that are not empty.
template <class Visit>
void for_non_zero(const NodeContext& c, const Visit& visit) {
  const Tensor& value = c.known_value(0);
  const int64_t n = value.shape.elements();
  WorkMeter meter;
  if (value.dtype == DType::kString) {
    const auto* x = value.as<std::string_view>();
    for_blocks(meter, 0, n, 2, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        if (!x[i].empty()) visit(i);
      }
    });
    meter.spend(0);
    return;
  }
  const bool known = dispatch<kAllTypes>(value.dtype, [&]<class T>() -> bool {
    const T* x = value.as<T>();
    for_blocks(meter, 0, n, 2, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        if (load(x[i]) != 0) visit(i);
      }
    });
    return true;
  });
  if (!known) c.unsupported(cat("input 0 of type ", dtype_name(value.dtype)));
  meter.spend(0);  // the last block may have been left out
}

/// How many there are, and where: `to` has room for them, dimension by dimension.
int64_t count_non_zero(const NodeContext& c) {
  int64_t count = 0;
  for_non_zero(c, [&](int64_t) { ++count; });
  return count;
}
void find_non_zero(const NodeContext& c, int64_t count, int64_t* to) {
  const Shape& x = c.known_value(0).shape;
  const auto strides = x.strides();
  int64_t found = 0;
  WorkMeter meter;
  for_non_zero(c, [&](int64_t place) {
    meter.spend(10 * static_cast<int64_t>(x.rank()));
    for (size_t d = 0; d < x.rank(); ++d) to[static_cast<int64_t>(d) * count + found] = place / strides[d] % x[d];
    ++found;
  });
}

/// Small ones are found while the plan is made; what may take long, or much memory, is left to the run, which counts
/// both.
void infer_non_zero(InferContext& c) {
  constexpr int64_t kSmall = 1 << 14;
  const Tensor& value = c.known_value(0);
  if (value.shape.elements() > kSmall) throw NeedsValue(0, cat(c.node().label(), ": only a run can tell how many"));
  const int64_t count = count_non_zero(c);
  void* data = nullptr;
  const Tensor out = make_tensor(DType::kI64, {static_cast<int64_t>(value.shape.rank()), count}, &data);
  find_non_zero(c, count, static_cast<int64_t*>(data));
  c.set_constant(0, out);
}

std::vector<Tensor> non_zero_values(const NodeContext& c, DynamicContext& run) {
  const auto rank = static_cast<int64_t>(c.known_value(0).shape.rank());
  run.spend(4 * c.known_value(0).shape.elements());
  const int64_t count = count_non_zero(c);
  run.spend(10 * rank * count);
  void* data = nullptr;
  Tensor out = run.allocate(DType::kI64, {rank, count}, &data);
  find_non_zero(c, count, static_cast<int64_t*>(data));
  return {out};
}

struct ReverseParams {
  int64_t times, batches, row_bytes;
  bool time_major;
};
void run_reverse(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ReverseParams*>(params);
  const auto* lengths = reinterpret_cast<const int64_t*>(io[1]);
  WorkMeter meter;
  for (int64_t b = 0; b < p.batches; ++b) {
    const int64_t length = lengths[b];
    if (length < 0 || length > p.times) {
      throw Error(ErrorCode::kInference,
                  cat("a sequence length of ", length, " in an input of ", counted(p.times, "step")));
    }
    for (int64_t t = 0; t < p.times && meter.go_on(row_nanos(p.row_bytes)); ++t) {
      const int64_t from = t < length ? length - 1 - t : t;
      const auto place = [&](int64_t time) {
        return (p.time_major ? time * p.batches + b : b * p.times + time) * p.row_bytes;
      };
      copy_row(io[2] + place(t), io[0] + place(from), p.row_bytes);
    }
  }
}

void infer_reverse(InferContext& c) {
  const int64_t batch = c.attr_int("batch_axis", 1), time = c.attr_int("time_axis", 0);
  if (!((batch == 0 && time == 1) || (batch == 1 && time == 0))) c.fail("the axes must be 0 and 1");
  const Shape& x = c.input(0).shape;
  if (x.rank() < 2) c.fail(cat("the input must have 2 dimensions or more, not ", x.str()));
  if (c.input(1).dtype != DType::kI64 || !(c.input(1).shape == Shape{x[static_cast<size_t>(batch)]})) {
    c.fail("sequence_lens must be int64, one a batch");
  }
  c.set_output(0, c.input(0).dtype, x);
}
Axes mixed_by_reverse(const NodeContext& c, size_t i) {
  return i == 0 ? one_axis(c.attr_int("time_axis", 0)) : Axes{0};
}
void lower_reverse(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const bool time_major = c.attr_int("time_axis", 0) == 0;
  const ReverseParams p{x.shape[time_major ? 0 : 1], x.shape[time_major ? 1 : 0],
                        x.shape.elements(2, x.shape.rank()) * static_cast<int64_t>(dtype_size(x.dtype)), time_major};
  c.step(run_reverse, p, {c.in(0), c.in(1), c.out(0)},
         multiplied(p.times, p.batches) * (2 + static_cast<double>(p.row_bytes) / 16));
}

}  // namespace

void register_select(OpRegistry& r) {
  r.add_dynamic({.name = "Compress",
                 .since = 9,
                 .min_inputs = 2,
                 .max_inputs = 2,
                 .max_outputs = 1,
                 .infer = infer_compress,
                 .rows_mix = [](const Node& node,
                                const Graph&) { return int_attr(node, "axis", 0) == 0; }},  // also without one: of all
                lower_compress, compress_values);
  r.add_dynamic({.name = "NonZero",
                 .since = 9,
                 .min_inputs = 1,
                 .max_inputs = 1,
                 .max_outputs = 1,
                 .infer = infer_non_zero,
                 .mixed_axes = [](const NodeContext&, size_t) { return kAllAxes; }},
                nullptr, non_zero_values);
  r.add({.name = "ReverseSequence",
         .since = 10,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer_reverse,
         .mixed_axes = mixed_by_reverse},
        lower_reverse);
}

}  // namespace inferkit
