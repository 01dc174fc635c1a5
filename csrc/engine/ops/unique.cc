// Unique: the different elements, or slices along an axis, with where each first stands, which each is and how many.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "engine/op_registry.h"
#include "engine/ops/dispatch.h"

namespace inferkit {
namespace {

/// The input as slices that are compared: (outer, count, inner) along the axis, or count single elements.
struct SliceView {
  int64_t outer = 1, count = 0, inner = 1;
};

/// Slices in the order of their elements; a NaN stands after all numbers and is like another NaN.
template <class T>
int compare(const T* x, const SliceView& v, int64_t a, int64_t b) {
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
  std::vector<int64_t> first, of_slice, size;
};

template <class T>
Groups group(const T* x, const SliceView& v, bool sorted) {
  std::vector<int64_t> order(static_cast<size_t>(v.count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return compare(x, v, a, b) < 0; });
  Groups g;
  g.of_slice.resize(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || compare(x, v, order[i - 1], order[i]) != 0) {
      g.first.push_back(order[i]);
      g.size.push_back(0);
    }
    g.of_slice[static_cast<size_t>(order[i])] = static_cast<int64_t>(g.first.size()) - 1;
    ++g.size.back();
  }
  if (sorted) return g;
  std::vector<int64_t> by_first(g.first.size()), rank(g.first.size());
  std::iota(by_first.begin(), by_first.end(), 0);
  std::sort(by_first.begin(), by_first.end(),
            [&](int64_t a, int64_t b) { return g.first[static_cast<size_t>(a)] < g.first[static_cast<size_t>(b)]; });
  Groups out;
  for (size_t i = 0; i < by_first.size(); ++i) {
    const auto from = static_cast<size_t>(by_first[i]);
    rank[from] = static_cast<int64_t>(i);
    out.first.push_back(g.first[from]);
    out.size.push_back(g.size[from]);
  }
  for (const int64_t of : g.of_slice) out.of_slice.push_back(rank[static_cast<size_t>(of)]);
  return out;
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
  Groups g;
  const bool known = dispatch<kAllTypes>(x.dtype, [&]<class T>() -> bool {
    g = group(x.as<T>(), v, c.attr_int("sorted", 1) != 0);
    return true;
  });
  if (!known) c.unsupported("strings");
  shape[axis] = static_cast<int64_t>(g.first.size());
  void* data = nullptr;
  Tensor out = run.allocate(x.dtype, shape, &data);
  const auto row = static_cast<size_t>(v.inner) * dtype_size(x.dtype);
  auto* to = static_cast<std::byte*>(data);
  for (int64_t o = 0; o < v.outer && row != 0; ++o) {
    for (const int64_t first : g.first) {
      std::memcpy(to, static_cast<const std::byte*>(x.data) + static_cast<size_t>(o * v.count + first) * row, row);
      to += row;
    }
  }
  return {out, integers(run, g.first), integers(run, g.of_slice), integers(run, g.size)};
}

}  // namespace

void register_unique(OpRegistry& r) {
  r.add_dynamic({.name = "Unique", .since = 11, .min_inputs = 1, .max_inputs = 1, .max_outputs = 4}, nullptr,
                run_unique);
}

}  // namespace inferkit
