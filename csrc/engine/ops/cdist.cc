// com.microsoft's CDist: the distances between the rows of two matrices. By differences, in double: the product of the
// matrices would be faster, but loses the distances of rows that lie close together and far from zero.
#include <algorithm>
#include <cmath>

#include "engine/compile/op_registry.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"

namespace inferkit {
namespace {

constexpr int64_t kGrain = 1 << 15;  // differences: some 10 us

struct DistanceParams {
  int64_t rows, others, features;
  bool root;
};

/// The sum of the squared differences, in eight sums side by side that are added in one order on all machines.
template <class T>
double squared_distance(const T* a, const T* b, int64_t n) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {};
  const int64_t whole = n / kSums * kSums;
  for (int64_t i = 0; i < whole; i += kSums) {
    for (int64_t j = 0; j < kSums; ++j) {
      const double d = static_cast<double>(a[i + j]) - static_cast<double>(b[i + j]);
      sums[j] += d * d;
    }
  }
  for (int64_t i = whole; i < n; ++i) {
    const double d = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sums[i - whole] += d * d;
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/// io: y, a, b.
template <class T>
void run_cdist(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const DistanceParams*>(params);
  T* y = reinterpret_cast<T*>(io[0]);
  const T *a = reinterpret_cast<const T*>(io[1]), *b = reinterpret_cast<const T*>(io[2]);
  for_ranges(context, p.rows * p.others, kGrain / std::max<int64_t>(1, p.features), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const double squared = squared_distance(a + i / p.others * p.features, b + i % p.others * p.features, p.features);
      y[i] = static_cast<T>(p.root ? std::sqrt(squared) : squared);
    }
  });
}

std::string metric_of(const NodeContext& c) {
  std::string metric = c.attr_string("metric", "sqeuclidean");
  if (metric != "euclidean" && metric != "sqeuclidean")
    c.unsupported(cat("metric ", metric, "; there are euclidean and sqeuclidean"));
  return metric;
}

void infer_cdist(InferContext& c) {
  metric_of(c);
  require_type(c, 0, types(DType::kF32, DType::kF64));
  require_same_type(c, 0, 1);
  const Shape &a = c.input(0).shape, &b = c.input(1).shape;
  if (a.rank() != 2 || b.rank() != 2 || a[1] != b[1])
    c.fail(cat("expected two matrices with as many columns, got ", a.str(), " and ", b.str()));
  c.set_output(0, c.input(0).dtype, Shape{a[0], b[0]});
}

void lower_cdist(LowerContext& c) {
  const Shape &a = c.input(0).shape, &y = c.output(0).shape;
  const DistanceParams p{y[0], y[1], a[1], metric_of(c) == "euclidean"};
  if (y.elements() == 0) return;
  const StepFn fn = c.input(0).dtype == DType::kF32 ? run_cdist<float> : run_cdist<double>;
  c.step(fn, p, {c.out(0), c.in(0), c.in(1)}, static_cast<double>(y.elements()) * static_cast<double>(a[1] + 4));
}

}  // namespace

void register_cdist(OpRegistry& r) {
  r.add(
      {.domain = kMicrosoft, .name = "CDist", .min_inputs = 2, .max_inputs = 2, .max_outputs = 1, .infer = infer_cdist},
      lower_cdist);
}

}  // namespace inferkit
