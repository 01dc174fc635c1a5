// BatchNormalization: y = a x + b with one a and b per channel, made ahead where scale, bias and statistics are
// constant. In training mode the statistics are those of the batch, by the definition of opset 14: the mean and the
// variance of all the elements of a channel, in double precision, the variance about the mean and not corrected for the
// sample. There y = a (x - mean) + b in float32, as the other normalisations here keep the digits of the spread
// (docs/decisions/025): b takes up what the mean loses when it is rounded.
#include <array>
#include <bit>
#include <cmath>
#include <type_traits>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "graph/passes/pattern.h"
#include "kernels/cpu/affine/affine.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

constexpr int64_t kParallelElements = 1 << 18;

struct TableParams {
  int64_t channels;
  std::array<DType, 4> dtypes;  // scale, bias, mean, variance
  double epsilon;
};

struct ApplyParams {
  int64_t batch, channels, area;
};

double element(DType dtype, const void* data, int64_t i) {
  return dispatch<kFloatTypes>(dtype,
                               [&]<class T>() { return static_cast<double>(load(static_cast<const T*>(data)[i])); });
}

/// table[c] = a, table[channels + c] = b.
template <class A>
void fill_channel(const TableParams& p, int64_t c, double scale, double bias, double mean, double variance, A* table) {
  const double a = scale / std::sqrt(variance + p.epsilon);
  table[c] = static_cast<A>(a);
  table[p.channels + c] = static_cast<A>(bias - mean * a);
}

template <class A>
void fill_table(const TableParams& p, const std::array<const void*, 4>& in, A* table) {
  for (int64_t c = 0; c < p.channels; ++c) {
    double v[4];
    for (size_t i = 0; i < 4; ++i) v[i] = element(p.dtypes[i], in[i], c);
    fill_channel(p, c, v[0], v[1], v[2], v[3], table);
  }
}

/// io: table, scale, bias, mean, variance.
template <class A>
void run_table(const void* params, std::byte* const* io, const ExecContext&) {
  fill_table(*static_cast<const TableParams*>(params), {io[1], io[2], io[3], io[4]}, reinterpret_cast<A*>(io[0]));
}

struct StatisticsParams {
  TableParams table;
  ApplyParams size;
  DType x;
  double momentum;
  bool gives[4];  // the running mean and variance, and the saved ones
};

void set_element(DType dtype, void* data, int64_t i, double value) {
  dispatch<kFloatTypes>(dtype, [&]<class T>() { static_cast<T*>(data)[i] = store<T>(static_cast<Compute<T>>(value)); });
}

/// By channel, in pieces of `channels`: 1, -mean, a and b of y = a (x - mean) + b.
void fill_centered(const TableParams& p, int64_t c, double scale, double bias, double mean, double variance,
                   float* table) {
  const double a = scale / std::sqrt(variance + p.epsilon);
  const auto rounded = static_cast<float>(mean);
  table[c] = 1;
  table[p.channels + c] = -rounded;
  table[2 * p.channels + c] = static_cast<float>(a);
  table[3 * p.channels + c] = static_cast<float>(bias - (mean - static_cast<double>(rounded)) * a);
}

/// io: table, x, scale, bias, mean, variance, the running mean and variance, the saved mean, and the inverse of the
/// saved deviation, which is what ONNX Runtime gives for a saved variance.
template <class A>
void run_statistics(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const StatisticsParams*>(params);
  const auto& [batch, channels, area] = p.size;
  const double count = static_cast<double>(batch) * static_cast<double>(area);
  A* table = reinterpret_cast<A*>(io[0]);
  WorkMeter meter;
  bool on = true;
  for (int64_t c = 0; c < channels && on; ++c) {
    dispatch<kFloatTypes>(p.x, [&]<class T>() {
      const T* x = reinterpret_cast<const T*>(io[1]);
      const auto sum = [&](auto term) {  // of each image from zero, so that a long batch loses no digits
        double all = 0;
        for (int64_t n = 0; n < p.size.batch && on; ++n) {
          double image = 0;
          const T* at = x + (n * p.size.channels + c) * p.size.area;
          on = for_blocks(meter, 0, p.size.area, 1, [&](int64_t first, int64_t last) {
            for (int64_t i = first; i < last; ++i) image += term(static_cast<double>(load(at[i])));
          });
          all += image;
        }
        return all;
      };
      const double mean = sum([](double v) { return v; }) / count;
      const double variance = sum([mean](double v) { return (v - mean) * (v - mean); }) / count;
      const double scale = element(p.table.dtypes[0], io[2], c), bias = element(p.table.dtypes[1], io[3], c);
      if constexpr (std::is_same_v<A, float>) {
        fill_centered(p.table, c, scale, bias, mean, variance, table);
      } else {
        fill_channel(p.table, c, scale, bias, mean, variance, table);
      }
      const double now[] = {mean, variance}, saved[] = {mean, 1 / std::sqrt(variance + p.table.epsilon)};
      for (size_t k = 0; k < 2; ++k) {
        const DType type = p.table.dtypes[2 + k];
        const double before = element(type, io[4 + k], c);
        if (p.gives[k]) set_element(type, io[6 + k], c, before * p.momentum + now[k] * (1 - p.momentum));
        if (p.gives[2 + k]) set_element(type, io[8 + k], c, saved[k]);
      }
    });
  }
}

/// `passes` tables, one behind the other, are applied one after the other. io: x, y, table.
template <int passes>
void run_f32(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ApplyParams*>(params);
  float* y = reinterpret_cast<float*>(io[1]);
  const auto& affine = kernels::affine_kernels();
  const int64_t size = p.channels * p.area;
  const auto image = [&](int64_t n) {
    const float *x = reinterpret_cast<const float*>(io[0]), *table = reinterpret_cast<const float*>(io[2]);
    for (int pass = 0; pass < passes; ++pass, x = y, table += 2 * p.channels) {
      if (p.area == 1) {
        affine.vector(x + n * size, y + n * size, p.channels, table, table + p.channels);
        continue;
      }
      for (int64_t c = 0; c < p.channels; ++c) {
        const int64_t at = n * size + c * p.area;
        affine.scalar(x + at, y + at, p.area, table[c], table[p.channels + c]);
      }
    }
  };
  if (context.pool && context.max_threads > 1 && p.batch * size >= kParallelElements)
    context.pool->parallel_for(p.batch, context.max_threads, image);
  else
    for_parts(p.batch, image);
}

template <class T>
void run_generic(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ApplyParams*>(params);
  const T* x = reinterpret_cast<const T*>(io[0]);
  T* y = reinterpret_cast<T*>(io[1]);
  const double* table = reinterpret_cast<const double*>(io[2]);
  WorkMeter meter;
  for (int64_t i = 0; i < p.batch * p.channels && meter.go_on(2 * p.area); ++i) {
    const double a = table[i % p.channels], b = table[p.channels + i % p.channels];
    for (int64_t j = i * p.area; j < (i + 1) * p.area; ++j)
      y[j] = store<T>(static_cast<Compute<T>>(static_cast<double>(load(x[j])) * a + b));
  }
}

void infer_batch_norm(InferContext& c) {
  if (c.version() < 9 && c.attr_int("spatial", 1) == 0) c.unsupported("spatial = 0");
  const bool training = batch_norm_trains(c.node());
  const size_t most_outputs = !training ? 1 : c.version() < 14 ? 5 : 3;
  if (c.version() < 7 && c.attr_int("is_test", 0) == 0) c.unsupported("is_test = 0");
  for (size_t i = most_outputs; i < c.node().outputs.size(); ++i) {
    if (c.has_output(i)) c.unsupported(cat("output ", i, ", which only training fills"));
  }
  const TensorFacts& x = c.input(0);
  require_type(c, 0, kFloatTypes);
  if (x.shape.rank() < 1) c.fail("expected [batch, channels, spatial...], got a scalar");
  const int64_t channels = x.shape.rank() > 1 ? x.shape[1] : 1;
  for (size_t i = 1; i < 5; ++i) {
    require_type(c, i, kFloatTypes);
    if (c.input(i).shape != Shape{channels})
      c.fail(cat("input ", i, " has shape ", c.input(i).shape.str(), "; expected one value for each of ",
                 counted(channels, "channel")));
  }
  if (training && x.shape.elements() == 0) c.fail(cat("statistics of no elements: x has shape ", x.shape.str()));
  c.set_output(0, x.dtype, x.shape);
  for (size_t i = 1; i < most_outputs; ++i) {
    if (c.has_output(i)) c.set_output(i, c.input(i % 2 ? 3 : 4).dtype, {channels});
  }
}

template <class A>
Ref lower_statistics(LowerContext& c, const TableParams& table, const ApplyParams& size) {
  constexpr bool kCentered = std::is_same_v<A, float>;
  const Ref to = c.scratch(static_cast<size_t>((kCentered ? 4 : 2) * size.channels) * sizeof(A));
  StatisticsParams p{table, size, c.input(0).dtype, static_cast<double>(c.attr_float("momentum", 0.9f)), {}};
  std::array<Ref, 4> given{to, to, to, to};  // what nobody reads is not written
  for (size_t k = 0; k < given.size(); ++k) {
    p.gives[k] = c.has_output(1 + k) && c.out(1 + k).valid();
    if (p.gives[k]) given[k] = c.out(1 + k);
  }
  c.step(run_statistics<A>, p,
         {to, c.in(0), c.in(1), c.in(2), c.in(3), c.in(4), given[0], given[1], given[2], given[3]},
         multiplied(size.batch, size.channels, size.area) * 4);
  return to;
}

template <class A>
Ref lower_table(LowerContext& c, const TableParams& p) {
  std::array<const void*, 4> in{};
  for (size_t i = 0; i < 4; ++i) {
    const Tensor* constant = c.input(i + 1).constant;
    if (!constant) {
      const Ref table = c.scratch(static_cast<size_t>(2 * p.channels) * sizeof(A));
      c.step(run_table<A>, p, {table, c.in(1), c.in(2), c.in(3), c.in(4)}, static_cast<double>(p.channels) * 20);
      return table;
    }
    in[i] = constant->data;
  }
  // The bits of epsilon: printed, two that differ may look the same.
  const Packing packing{cat("batch-norm-", std::bit_cast<uint64_t>(p.epsilon)), kDTypeOf<A>, 2 * p.channels, {}};
  return c.packed({c.input(1).constant, c.input(2).constant, c.input(3).constant, c.input(4).constant}, packing,
                  [&](void* to) { fill_table(p, in, static_cast<A*>(to)); });
}

void lower_batch_norm(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const bool flat = x.shape.rank() == 1;
  const ApplyParams p{x.shape[0], flat ? 1 : x.shape[1], flat ? 1 : x.shape.elements(2, x.shape.rank())};
  if (x.shape.elements() == 0) return;
  TableParams t{p.channels, {}, static_cast<double>(c.attr_float("epsilon", 1e-5f))};
  for (size_t i = 0; i < 4; ++i) t.dtypes[i] = c.input(i + 1).dtype;
  const bool f32 = x.dtype == DType::kF32, training = batch_norm_trains(c.node());
  const Ref table = training ? (f32 ? lower_statistics<float>(c, t, p) : lower_statistics<double>(c, t, p))
                             : (f32 ? lower_table<float>(c, t) : lower_table<double>(c, t));
  const StepFn fn =
      f32 ? (training ? run_f32<2> : run_f32<1>) : dispatch<kFloatTypes>(x.dtype, []<class T>() -> StepFn {
        return run_generic<T>;
      });
  c.in_place(0, 0);
  c.step(fn, p, {c.in(0), c.out(0), table}, static_cast<double>(x.shape.elements()) * (f32 ? 0.1 : 4));
}

}  // namespace

void register_batch_normalization(OpRegistry& r) {
  r.add({.name = "BatchNormalization",
         .since = 6,
         .min_inputs = 5,
         .max_inputs = 5,
         .max_outputs = 5,
         .infer = infer_batch_norm,
         .rows_mix = [](const Node& node, const Graph&) { return batch_norm_trains(node); }},
        lower_batch_norm);
}

}  // namespace inferkit
