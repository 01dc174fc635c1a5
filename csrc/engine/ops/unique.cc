// Unique: the different elements, or slices along an axis, with where each first stands, which each is and how many.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <string_view>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/sort.h"
#include "engine/ops/dispatch.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

/// The input as slices that are compared: (outer, count, inner) along the axis, or count single elements.
struct SliceView {
  int64_t outer = 1, count = 0, inner = 1;
};

/// Slices in the order of their elements, strings in that of their characters' numbers; a NaN stands after all numbers
/// and is like another NaN.
template <class T>
int compare_slices(const void* data, const SliceView& v, int64_t a, int64_t b) {
  const T* x = static_cast<const T*>(data);
  for (int64_t o = 0; o < v.outer; ++o) {
    for (int64_t i = 0; i < v.inner; ++i) {
      const auto p = load(x[(o * v.count + a) * v.inner + i]), q = load(x[(o * v.count + b) * v.inner + i]);
      if (p < q) return -1;
      if (q < p) return 1;
      const bool p_nan = p != p, q_nan = q != q;
      if (p_nan != q_nan) return p_nan ? 1 : -1;
    }
  }
  return 0;
}

Tensor integers(DynamicContext& run, const std::vector<int64_t>& values) {
  void* data = nullptr;
  Tensor out = run.allocate(DType::kI64, {static_cast<int64_t>(values.size())}, &data);
  if (!values.empty()) std::memcpy(data, values.data(), values.size() * sizeof(int64_t));
  return out;
}

/// The groups of like slices: in ascending order, or (not sorted) in that of their first members.
struct Groups {
  std::span<int64_t> order, of_slice;  // for each slice: room to sort them, and its group
  std::vector<int64_t> first = {}, size = {};
};

constexpr int64_t kTouchNanos = 10;  // of memory anywhere

using CompareFn = int (*)(const void* x, const SliceView& v, int64_t a, int64_t b);

void group(CompareFn compare, const void* x, const SliceView& v, bool sorted, Groups& g) {
  const std::span<int64_t> order = g.order;
  WorkMeter meter;
  for_blocks(meter, 0, v.count, 1,
             [&](int64_t first, int64_t last) { std::iota(order.begin() + first, order.begin() + last, first); });
  const int64_t each = kTouchNanos + v.outer * v.inner;
  // The groups' room is still free.
  const bool sorted_all = sort_in_blocks(meter, order, g.of_slice, each, [&](int64_t a, int64_t b) {
    const int c = compare(x, v, a, b);
    return c < 0 || (c == 0 && a < b);
  });
  if (!sorted_all) throw Stopped();
  for (size_t i = 0; i < order.size(); ++i) {
    meter.spend(each);
    if (i == 0 || compare(x, v, order[i - 1], order[i]) != 0) {
      g.first.push_back(order[i]);
      g.size.push_back(0);
    }
    g.of_slice[static_cast<size_t>(order[i])] = static_cast<int64_t>(g.first.size()) - 1;
    ++g.size.back();
  }
  if (sorted) return;
  const std::vector<int64_t> first = g.first, size = g.size;
  std::vector<int64_t> by_first(first.size()), rank(first.size());
  std::iota(by_first.begin(), by_first.end(), 0);
  const bool ranked = sort_in_blocks(
      meter, std::span(by_first), std::span(rank), kTouchNanos,
      [&](int64_t a, int64_t b) { return first[static_cast<size_t>(a)] < first[static_cast<size_t>(b)]; });
  if (!ranked) throw Stopped();
  for (size_t i = 0; i < by_first.size(); ++i) {
    meter.spend(kTouchNanos);
    const auto from = static_cast<size_t>(by_first[i]);
    rank[from] = static_cast<int64_t>(i);
    g.first[i] = first[from];
    g.size[i] = size[from];
  }
  for (int64_t& of : g.of_slice) {
    meter.spend(kTouchNanos);
    of = rank[static_cast<size_t>(of)];
  }
}

std::vector<Tensor> run_unique(const NodeContext& c, DynamicContext& run) {
  const Tensor& x = c.known_value(0);
  SliceView v{1, x.shape.elements(), 1};
  Shape shape{0};
  size_t axis = 0;
  if (c.has_attr("axis")) {
    axis = static_cast<size_t>(c.attr_axis(0, static_cast<int64_t>(x.shape.rank())));
    shape = x.shape;
    v = {x.shape.elements(0, axis), x.shape[axis], x.shape.elements(axis + 1, x.shape.rank())};
  }
  // One number for each slice, of the run's memory: slices may have no elements, and then be any number.
  void *order_data = nullptr, *of_slice_data = nullptr;
  const Tensor order_memory = run.allocate(DType::kI64, {v.count}, &order_data);
  const Tensor of_slice = run.allocate(DType::kI64, {v.count}, &of_slice_data);
  const auto slices = static_cast<size_t>(v.count);
  Groups g{std::span(static_cast<int64_t*>(order_data), slices),
           std::span(static_cast<int64_t*>(of_slice_data), slices)};
  const CompareFn compare =
      x.dtype == DType::kString
          ? compare_slices<std::string_view>
          : dispatch<kAllTypes>(x.dtype, []<class T>() -> CompareFn { return compare_slices<T>; });
  if (!compare) c.unsupported(cat("an input of type ", dtype_name(x.dtype)));
  group(compare, x.data, v, c.attr_int("sorted", 1) != 0, g);
  shape[axis] = static_cast<int64_t>(g.first.size());
  void* data = nullptr;
  Tensor out = run.allocate(x.dtype, shape, &data);
  const auto row = static_cast<size_t>(v.inner) * dtype_size(x.dtype);
  auto* to = static_cast<std::byte*>(data);
  WorkMeter meter;
  for (int64_t o = 0; o < v.outer && row != 0; ++o) {
    for (const int64_t first : g.first) {
      meter.spend(kTouchNanos + static_cast<int64_t>(row / 8));
      std::memcpy(to, static_cast<const std::byte*>(x.data) + static_cast<size_t>(o * v.count + first) * row, row);
      to += row;
    }
  }
  return {out, integers(run, g.first), of_slice, integers(run, g.size)};
}

}  // namespace

void register_unique(OpRegistry& r) {
  r.add_dynamic({.name = "Unique",
                 .since = 11,
                 .min_inputs = 1,
                 .max_inputs = 1,
                 .max_outputs = 4,
                 .rows_mix = [](const Node&, const Graph&) { return true; }},
                nullptr, run_unique);
}

}  // namespace inferkit
