// Compress and NonZero, whose shapes depend on data: they run as dynamic steps where that data is not constant.
// ReverseSequence.
#include "engine/compile/op_registry.h"
#include "engine/ops/common/copy_rows.h"
#include "engine/ops/dispatch.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

// The positions that the constant condition picks.
std::vector<int64_t> picked(const NodeContext& c) {
  const TensorFacts& condition = c.input(1);
  if (condition.dtype != DType::kBool) c.wrong("the condition must be a bool vector");
  if (condition.shape.rank() != 1) c.fail("the condition must be a bool vector");
  const Tensor& value = c.known_value(1);
  std::vector<int64_t> out;
  WorkMeter meter;
  for (int64_t i = 0; i < condition.shape[0]; ++i) {
    meter.spend(2);
    if (value.as<bool>()[i]) out.push_back(i);
  }
  return out;
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
  const std::vector<int64_t> places = picked(c);
  if (!places.empty() && places.back() >= out[axis]) {
    c.fail(cat("the condition picks ", places.back(), " of a dimension of ", out[axis]));
  }
  out[axis] = static_cast<int64_t>(places.size());
  c.set_output(0, c.input(0).dtype, out);
}

void lower_compress(LowerContext& c) {
  const DType dtype = c.input(0).dtype;
  if (dtype == DType::kString) c.unsupported("strings");
  size_t axis = 0;
  const Shape x = compress_view(c, axis);
  const auto places = std::make_shared<std::vector<int64_t>>(picked(c));
  const CompressParams p{x.elements(0, axis), x[axis], static_cast<int64_t>(places->size()),
                         x.elements(axis + 1, x.rank()) * static_cast<int64_t>(dtype_size(dtype))};
  c.step(run_compress, p, {c.in(0), c.constant(places->data(), places), c.out(0)},
         static_cast<double>(p.outer * p.count) * (2 + static_cast<double>(p.row_bytes) / 16));
}

void infer_non_zero(InferContext& c) {
  const TensorFacts& x = c.input(0);
  const Tensor& value = c.known_value(0);
  const int64_t n = x.shape.elements();
  std::vector<int64_t> places;
  WorkMeter meter;
  const bool known = dispatch<kAllTypes>(x.dtype, [&]<class T>() -> bool {
    for (int64_t i = 0; i < n; ++i) {
      meter.spend(2);
      if (load(value.as<T>()[i]) != 0) places.push_back(i);
    }
    return true;
  });
  if (!known) c.unsupported("strings");
  const auto rank = static_cast<int64_t>(x.shape.rank()), count = static_cast<int64_t>(places.size());
  const auto strides = x.shape.strides();
  std::vector<int64_t> out;
  for (size_t d = 0; d < x.shape.rank(); ++d) {
    for (int64_t place : places) {
      meter.spend(10);
      out.push_back(place / strides[d] % x.shape[d]);
    }
  }
  c.set_constant(0, make_tensor<int64_t>({rank, count}, out));
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
      throw Error(ErrorCode::kInference, cat("a sequence length of ", length, " where there are ", p.times, " steps"));
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
void lower_reverse(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  if (x.dtype == DType::kString) c.unsupported("strings");
  const bool time_major = c.attr_int("time_axis", 0) == 0;
  const ReverseParams p{x.shape[time_major ? 0 : 1], x.shape[time_major ? 1 : 0],
                        x.shape.elements(2, x.shape.rank()) * static_cast<int64_t>(dtype_size(x.dtype)), time_major};
  c.step(run_reverse, p, {c.in(0), c.in(1), c.out(0)},
         static_cast<double>(p.times * p.batches) * (2 + static_cast<double>(p.row_bytes) / 16));
}

}  // namespace

void register_select(OpRegistry& r) {
  r.add_dynamic(
      {.name = "Compress", .since = 9, .min_inputs = 2, .max_inputs = 2, .max_outputs = 1, .infer = infer_compress},
      lower_compress, run_on_values);
  r.add_dynamic(
      {.name = "NonZero", .since = 9, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_non_zero},
      nullptr, run_on_values);
  r.add({.name = "ReverseSequence",
         .since = 10,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer_reverse},
        lower_reverse);
}

}  // namespace inferkit
