// ArgMax, ArgMin, TopK. NaN ranks above every number in a maximum (the first one wins) and, as in numpy, is also what a
// minimum finds first; TopK ranks NaN highest. Of equals the lower index comes first.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/extreme.h"
#include "engine/ops/common/sort.h"
#include "engine/ops/common/sort_keys.h"
#include "engine/ops/dispatch.h"
#include "kernels/cpu/row/row.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

struct ArgParams {
  int64_t outer, n, inner;
  kernels::ReduceFn reduce;  // for float32 rows
  KeysFn keys;               // for other types
  bool min;
  int64_t size;  // of an element
};

constexpr int64_t kColumns = 64;  // that are read together, as their memory is adjacent

/// For each of `width` columns of `rows` rows, where the greatest key stands; row(j, keys) writes those of row j. False
/// where the work was left.
template <bool kLast, class Key, class Row>
bool find_columns(WorkMeter& meter, int64_t rows, int64_t width, const Row& row, int64_t* where) {
  // Indices as wide as keys, and always so many columns: without a branch, and in vectors.
  Key best[kColumns] = {}, keys[kColumns] = {}, at[kColumns] = {};
  row(0, best);
  const bool found = for_blocks(meter, 1, rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      row(j, keys);
      for (int64_t i = 0; i < kColumns; ++i) {
        const bool better = kLast ? keys[i] >= best[i] : keys[i] > best[i];
        best[i] = better ? keys[i] : best[i];
        at[i] = better ? static_cast<Key>(j) : at[i];
      }
    }
  });
  std::copy_n(at, width, where);
  return found;
}

/// Calls f(first element, columns, where to write their places) for every block of columns, until it gives false.
template <class F>
void for_each_columns(const ArgParams& p, int64_t* y, F&& f) {
  for (int64_t o = 0; o < p.outer; ++o) {
    for (int64_t first = 0; first < p.inner; first += kColumns) {
      if (!f(o * p.n * p.inner + first, std::min(kColumns, p.inner - first), y + o * p.inner + first)) return;
    }
  }
}

/// Of fewer than 2^31 rows.
template <bool kLast>
void run_arg_floats(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ArgParams*>(params);
  const int64_t flip = p.min ? -1 : 0;
  WorkMeter meter;
  for_each_columns(p, reinterpret_cast<int64_t*>(io[1]), [&](int64_t at, int64_t width, int64_t* where) {
    const float* x = reinterpret_cast<const float*>(io[0]) + at;
    const auto row = [&](int64_t j, int32_t* to) {
      float line[kColumns] = {};
      std::copy_n(x + j * p.inner, width, line);
      for (int64_t i = 0; i < kColumns; ++i) to[i] = floating_key(line[i], flip, NanKey::kHighest);
    };
    return find_columns<kLast, int32_t>(meter, p.n, width, row, where);
  });
}

template <bool kLast>
void run_arg_keys(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ArgParams*>(params);
  WorkMeter meter;
  for_each_columns(p, reinterpret_cast<int64_t*>(io[1]), [&](int64_t at, int64_t width, int64_t* where) {
    const auto row = [&](int64_t j, int64_t* to) {
      p.keys(io[0] + (at + j * p.inner) * p.size, 1, width, p.min, NanKey::kHighest, to);
    };
    return find_columns<kLast, int64_t>(meter, p.n, width, row, where);
  });
}

// A row of floats: its maximum (NaN where there is one) by the kernel, then the place where it stands.
template <bool kLast>
void run_arg_row(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ArgParams*>(params);
  WorkMeter meter;
  for (int64_t o = 0; o < p.outer && meter.go_on(p.n / 4); ++o) {
    const float* x = reinterpret_cast<const float*>(io[0]) + o * p.n;
    const float best = p.reduce(x, p.n);
    const auto found = [&](float v) { return v == best || (is_nan(best) && is_nan(v)); };
    int64_t at = kLast ? p.n - 1 : 0;
    // Bounded, as the row may be the caller's and change after its maximum was read.
    for (int64_t left = p.n - 1; left > 0 && !found(x[at]); --left) at += kLast ? -1 : 1;
    reinterpret_cast<int64_t*>(io[1])[o] = at;
  }
}

/// A row of another type. Of each block of keys the greatest, then, where it is better than all before, its place.
template <bool kLast>
void run_arg_row_keys(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ArgParams*>(params);
  constexpr int64_t kBlock = 256, kLanes = 4;
  WorkMeter meter;
  for_line_blocks(meter, p.outer, p.n, 1, [&, best = int64_t{0}](int64_t o, int64_t begin, int64_t end) mutable {
    int64_t& where = reinterpret_cast<int64_t*>(io[1])[o];
    for (int64_t first = begin; first < end; first += kBlock) {
      const int64_t n = std::min(kBlock, end - first);
      int64_t keys[kBlock], most[kLanes];
      p.keys(io[0] + (o * p.n + first) * p.size, 1, n, p.min, NanKey::kHighest, keys);
      std::fill_n(most, kLanes, keys[0]);
      int64_t i = 0;
      for (; i + kLanes <= n; i += kLanes) {
        for (int64_t l = 0; l < kLanes; ++l) most[l] = std::max(most[l], keys[i + l]);
      }
      for (; i < n; ++i) most[0] = std::max(most[0], keys[i]);
      const int64_t top = *std::max_element(most, most + kLanes);
      if (first > 0 && !(kLast ? top >= best : top > best)) continue;
      best = top;
      int64_t at = kLast ? n - 1 : 0;
      while (keys[at] != top) at += kLast ? -1 : 1;
      where = first + at;
    }
  });
}

size_t axis_of(const NodeContext& c, int64_t fallback) {
  return static_cast<size_t>(c.attr_axis(fallback, static_cast<int64_t>(c.input(0).shape.rank())));
}

void infer_arg(InferContext& c) {
  Shape out = c.input(0).shape;
  const size_t axis = axis_of(c, 0);
  if (out[axis] == 0) c.fail("the dimension is empty");
  if (c.attr_int("keepdims", 1) != 0) {
    out[axis] = 1;
  } else {
    out.erase(axis);
  }
  c.set_output(0, DType::kI64, out);
}

template <bool kMax>
void lower_arg(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const size_t axis = axis_of(c, 0);
  const bool last = c.version() >= 12 && c.attr_int("select_last_index", 0) != 0;
  const auto size = static_cast<int64_t>(dtype_size(x.dtype));
  ArgParams p{x.shape.elements(0, axis),
              x.shape[axis],
              x.shape.elements(axis + 1, x.shape.rank()),
              nullptr,
              keys_fn<kNumberTypes>(x.dtype),
              !kMax,
              size};
  if (!p.keys) c.unsupported(cat("an input of type ", dtype_name(x.dtype)));
  StepFn fn = p.inner == 1 ? (last ? run_arg_row_keys<true> : run_arg_row_keys<false>)
                           : (last ? run_arg_keys<true> : run_arg_keys<false>);
  if (x.dtype == DType::kF32 && p.inner == 1) {
    p.reduce = kernels::reduce_fn(kMax ? kernels::Reduce::kMax : kernels::Reduce::kMin);
    fn = last ? run_arg_row<true> : run_arg_row<false>;
  } else if (x.dtype == DType::kF32 && p.n <= std::numeric_limits<int32_t>::max()) {
    fn = last ? run_arg_floats<true> : run_arg_floats<false>;
  }
  const int64_t columns = (p.inner + kColumns - 1) / kColumns * kColumns;
  const double each_row = 12 + static_cast<double>(p.n) * 0.4;
  c.step(fn, p, {c.in(0), c.out(0)},
         p.inner == 1 ? static_cast<double>(p.outer) * each_row : multiplied(p.outer, p.n, columns) * 0.5);
}

struct TopKParams {
  int64_t outer, n, inner, k;
  KeysFn keys;
  bool smallest;
  int64_t size;  // of an element
};

constexpr int64_t kInsert = 16;
constexpr int64_t kCompareNanos = 4;        // two values anywhere in memory
constexpr int64_t kMostSelected = 1 << 13;  // in one go: in less than a millisecond

/// Whether the whole line is sorted, or parted before its head is: where so many are wanted that nothing else is
/// faster.
bool sorts_all(int64_t n, int64_t k) { return k > kInsert && k > n / 8; }
bool selects(int64_t n, int64_t k) { return n <= kMostSelected && k <= n - n / 4; }

/// Of a line.
double top_k_nanos(int64_t n, int64_t k) {
  const auto sorted = [](int64_t count) { return multiplied(count, kCompareNanos) * std::log2(count); };
  if (k <= kInsert) return static_cast<double>(n);
  if (!sorts_all(n, k)) return multiplied(n, kCompareNanos);
  return selects(n, k) ? multiplied(n, kCompareNanos) + sorted(k) : sorted(n);
}

/// The k indices of the highest of n keys into `order`, in their order: few, which stay sorted while the others pass.
/// read(first, count, to) gives keys. False where the work was left.
template <class Read>
bool rank_few(int64_t n, int64_t k, const Read& read, int64_t* order, WorkMeter& meter) {
  constexpr int64_t kRead = 256;
  int64_t best[kInsert], held = 0;
  return for_blocks(meter, 0, n, 1, [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; at += kRead) {
      int64_t keys[kRead];
      const int64_t count = std::min(kRead, last - at);
      read(at, count, keys);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t v = keys[i];
        // Who comes later never passes an equal, and most are refused by the worst.
        if (held == k && v <= best[k - 1]) continue;
        if (held < k) ++held;
        int64_t place = held - 1;
        for (; place > 0 && v > best[place - 1]; --place) {
          best[place] = best[place - 1];
          order[place] = order[place - 1];
        }
        best[place] = v;
        order[place] = at + i;
      }
    }
  });
}

/// The same for more of them, by a heap of the best so far, the worst of them on top.
bool rank_many(int64_t n, int64_t k, const int64_t* keys, int64_t* order, WorkMeter& meter) {
  const auto before = [&](int64_t a, int64_t b) { return keys[a] > keys[b] || (a < b && keys[a] == keys[b]); };
  const auto keep = [&](int64_t first, int64_t last) {
    for (int64_t j = first; j < last; ++j) order[j] = j;
  };
  const auto sorted = [&](int64_t count) {
    const std::span all(order, static_cast<size_t>(2 * count));
    return sort_in_blocks(meter, all.first(static_cast<size_t>(count)), all.last(static_cast<size_t>(count)),
                          kCompareNanos, before);
  };
  if (sorts_all(n, k)) {
    if (!for_blocks(meter, 0, n, 1, keep)) return false;
    if (!selects(n, k)) return sorted(n);
    if (!meter.go_on(n * 4 * kCompareNanos)) return false;
    std::nth_element(order, order + k, order + n, before);
    return sorted(k);
  }
  const auto fill = [&](int64_t first, int64_t last) {
    keep(first, last);
    for (int64_t j = first; j < last; ++j) std::push_heap(order, order + j + 1, before);
  };
  const auto improve = [&](int64_t first, int64_t last) {
    for (int64_t j = first; j < last; ++j) {
      if (!before(j, order[0])) continue;
      std::pop_heap(order, order + k, before);
      order[k - 1] = j;
      std::push_heap(order, order + k, before);
    }
  };
  return for_blocks(meter, 0, k, 4 * kCompareNanos, fill) && for_blocks(meter, k, n, 4 * kCompareNanos, improve) &&
         sorted(k);
}

// Operands: x, values and indices (either may be missing), the keys of a line, scratch for n indices, or two times
// where all are sorted. What compares looks at the keys alone: x may be the caller's, and change meanwhile.
void run_top_k(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const TopKParams*>(params);
  std::byte* values = io[1];
  auto* indices = reinterpret_cast<int64_t*>(io[2]);
  auto* keys = reinterpret_cast<int64_t*>(io[3]);
  auto* order = reinterpret_cast<int64_t*>(io[4]);
  if (p.k == 0) return;
  WorkMeter meter;
  for (int64_t o = 0; o < p.outer; ++o) {
    for (int64_t i = 0; i < p.inner; ++i) {
      const std::byte* x = io[0] + (o * p.n * p.inner + i) * p.size;
      const auto read = [&](int64_t first, int64_t count, int64_t* to) {  // NaN is the highest, also of the smallest
        p.keys(x + first * p.inner * p.size, p.inner, count, p.smallest,
               p.smallest ? NanKey::kLowest : NanKey::kHighest, to);
      };
      const auto read_all = [&](int64_t first, int64_t last) { read(first, last - first, keys + first); };
      const auto write = [&](int64_t first, int64_t last) {
        for (int64_t j = first; j < last; ++j) {
          const int64_t to = (o * p.k + j) * p.inner + i;
          if (values) std::memcpy(values + to * p.size, x + order[j] * p.inner * p.size, static_cast<size_t>(p.size));
          if (indices) indices[to] = order[j];
        }
      };
      const bool ranked = p.k <= kInsert
                              ? rank_few(p.n, p.k, read, order, meter)
                              : for_blocks(meter, 0, p.n, 1, read_all) && rank_many(p.n, p.k, keys, order, meter);
      if (!ranked || !for_blocks(meter, 0, p.k, kCompareNanos, write)) {
        return;
      }
    }
  }
}

int64_t top_k_count(const NodeContext& c) {
  if (c.version() < 10) return c.attr_int("k", -1);
  const std::vector<int64_t> k = c.const_ints(1);
  if (k.size() != 1) c.fail("K must be one number");
  return k[0];
}

void infer_top_k(InferContext& c) {
  require_type(c, 0, kNumberTypes);  // before what only a run may know
  Shape out = c.input(0).shape;
  const size_t axis = axis_of(c, -1);
  const int64_t k = top_k_count(c);
  if (k < 0 || k > out[axis]) c.fail(cat("K is ", k, ", the dimension ", out[axis]));
  out[axis] = k;
  c.set_output(0, c.input(0).dtype, out);
  if (c.output_count() > 1) c.set_output(1, DType::kI64, out);
}

Axes mixed_by_top_k(const NodeContext& c, size_t i) {
  return i == 0 ? one_axis(static_cast<int64_t>(axis_of(c, -1))) : Axes{0};
}

void lower_top_k(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const size_t axis = axis_of(c, -1);
  const bool largest = c.version() < 11 || c.attr_int("largest", 1) != 0;
  const TopKParams p{
      x.shape.elements(0, axis),      x.shape[axis], x.shape.elements(axis + 1, x.shape.rank()), top_k_count(c),
      keys_fn<kNumberTypes>(x.dtype), !largest,      static_cast<int64_t>(dtype_size(x.dtype))};
  const size_t line = static_cast<size_t>(p.n) * sizeof(int64_t);
  const size_t kept = static_cast<size_t>(kInsert) * sizeof(int64_t);
  const bool few = p.k <= kInsert;
  c.step(run_top_k, p,
         {c.in(0), c.out(0), c.out(1), few ? Ref{} : c.scratch(line),
          c.scratch(few                   ? kept
                    : sorts_all(p.n, p.k) ? 2 * line
                                          : line)},
         multiplied(p.outer, p.inner) * top_k_nanos(p.n, p.k));
}

}  // namespace

void register_arg(OpRegistry& r) {
  r.add({.name = "ArgMax", .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_arg}, lower_arg<true>);
  r.add({.name = "ArgMin", .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_arg}, lower_arg<false>);
  r.add({.name = "TopK",
         .until = 9,
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 2,
         .infer = infer_top_k,
         .mixed_axes = mixed_by_top_k},
        lower_top_k);
  r.add({.name = "TopK",
         .since = 10,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 2,
         .infer = infer_top_k,
         .mixed_axes = mixed_by_top_k},
        lower_top_k);
}

}  // namespace inferkit
