// ArgMax, ArgMin, TopK. NaN ranks above every number in a maximum (the first one wins) and, as in numpy, is also what a
// minimum finds first; TopK ranks NaN highest. Of equals the lower index comes first.
#include <algorithm>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/extreme.h"
#include "engine/ops/common/sort.h"
#include "engine/ops/dispatch.h"
#include "kernels/cpu/row/row.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

struct ArgParams {
  int64_t outer, n, inner;
  kernels::ReduceFn reduce;  // for float32 rows
};

// Columns in blocks, so that adjacent memory is read together.
template <bool kMax, bool kLast, class T>
void run_arg(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const ArgParams*>(params);
  auto* y = reinterpret_cast<int64_t*>(io[1]);
  constexpr int64_t kBlock = 64;
  Compute<T> best[kBlock];
  WorkMeter meter;
  for (int64_t o = 0; o < p.outer; ++o) {
    const T* x = reinterpret_cast<const T*>(io[0]) + o * p.n * p.inner;
    for (int64_t first = 0; first < p.inner; first += kBlock) {
      const int64_t width = std::min(kBlock, p.inner - first);
      int64_t* where = y + o * p.inner + first;
      for (int64_t i = 0; i < width; ++i) {
        best[i] = load(x[first + i]);
        where[i] = 0;
      }
      const bool went_on = for_blocks(meter, 1, p.n, width, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
          const T* row = x + j * p.inner + first;
          for (int64_t i = 0; i < width; ++i) {
            const auto v = load(row[i]);
            if (!replaces<kMax, kLast>(v, best[i])) continue;
            best[i] = v;
            where[i] = j;
          }
        }
      });
      if (!went_on) return;
    }
  }
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
  ArgParams p{x.shape.elements(0, axis), x.shape[axis], x.shape.elements(axis + 1, x.shape.rank()), nullptr};
  StepFn fn = dispatch<kNumberTypes>(
      x.dtype, [&]<class T>() -> StepFn { return last ? run_arg<kMax, true, T> : run_arg<kMax, false, T>; });
  if (!fn) c.unsupported(cat("an input of type ", dtype_name(x.dtype)));
  if (x.dtype == DType::kF32 && p.inner == 1) {
    p.reduce = kernels::reduce_fn(kMax ? kernels::Reduce::kMax : kernels::Reduce::kMin);
    fn = last ? run_arg_row<true> : run_arg_row<false>;
  }
  c.step(fn, p, {c.in(0), c.out(0)}, static_cast<double>(x.shape.elements()) * 0.5);
}

struct TopKParams {
  int64_t outer, n, inner, k;
};

constexpr int64_t kInsert = 16;
constexpr int64_t kCompareNanos = 4;  // two values anywhere in memory

/// Of values alone; NaN is the highest.
template <bool kLargest, class C>
bool outranks(C u, C v) {
  if constexpr (std::is_floating_point_v<C>) {
    return kLargest ? u > v || (is_nan(u) && !is_nan(v)) : u < v || (is_nan(v) && !is_nan(u));
  }
  return kLargest ? u > v : u < v;
}

/// Whether the whole line is sorted: where so many are wanted that nothing else is faster.
bool sorts_all(int64_t n, int64_t k) { return k > kInsert && k > n / 8; }

/// The best k of n indices into `order`, in their order. Few: they stay sorted while the others pass. More: a heap of
/// the best so far, the worst of them on top. False where the work was left.
template <bool kLargest, class Value>
bool rank(const TopKParams& p, const Value& value, int64_t* order, WorkMeter& meter) {
  if (p.k <= kInsert) {
    int64_t held = 0;
    decltype(value(0)) worst{};
    // Who comes later never passes an equal, and most are refused by the worst.
    return for_blocks(meter, 0, p.n, 1, [&](int64_t first, int64_t last) {
      int64_t count = held;
      auto least = worst;
      for (int64_t j = first; j < last; ++j) {
        const auto v = value(j);
        if (count == p.k && !outranks<kLargest>(v, least)) continue;
        if (count < p.k) ++count;
        int64_t place = count - 1;
        for (; place > 0 && outranks<kLargest>(v, value(order[place - 1])); --place) order[place] = order[place - 1];
        order[place] = j;
        least = value(order[count - 1]);
      }
      held = count;
      worst = least;
    });
  }
  const auto before = [&](int64_t a, int64_t b) {
    const auto u = value(a), v = value(b);
    return outranks<kLargest>(u, v) || (a < b && !outranks<kLargest>(v, u));
  };
  const auto keep = [&](int64_t first, int64_t last) {
    for (int64_t j = first; j < last; ++j) order[j] = j;
  };
  const auto sorted = [&](int64_t count) {
    const std::span all(order, static_cast<size_t>(2 * count));
    return sort_in_blocks(meter, all.first(static_cast<size_t>(count)), all.last(static_cast<size_t>(count)),
                          kCompareNanos, before);
  };
  if (sorts_all(p.n, p.k)) return for_blocks(meter, 0, p.n, 1, keep) && sorted(p.n);
  const auto fill = [&](int64_t first, int64_t last) {
    keep(first, last);
    for (int64_t j = first; j < last; ++j) std::push_heap(order, order + j + 1, before);
  };
  const auto improve = [&](int64_t first, int64_t last) {
    for (int64_t j = first; j < last; ++j) {
      if (!before(j, order[0])) continue;
      std::pop_heap(order, order + p.k, before);
      order[p.k - 1] = j;
      std::push_heap(order, order + p.k, before);
    }
  };
  return for_blocks(meter, 0, p.k, 4 * kCompareNanos, fill) &&
         for_blocks(meter, p.k, p.n, 4 * kCompareNanos, improve) && sorted(p.k);
}

// Operands: x, values and indices (either may be missing), scratch for n indices, or two times where all are sorted.
template <bool kLargest, class T>
void run_top_k(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const TopKParams*>(params);
  T* values = reinterpret_cast<T*>(io[1]);
  auto* indices = reinterpret_cast<int64_t*>(io[2]);
  auto* order = reinterpret_cast<int64_t*>(io[3]);
  if (p.k == 0) return;
  WorkMeter meter;
  for (int64_t o = 0; o < p.outer; ++o) {
    for (int64_t i = 0; i < p.inner; ++i) {
      const T* x = reinterpret_cast<const T*>(io[0]) + o * p.n * p.inner + i;
      if (!rank<kLargest>(p, [&](int64_t j) { return load(x[j * p.inner]); }, order, meter)) return;
      const bool went_on = for_blocks(meter, 0, p.k, kCompareNanos, [&](int64_t first, int64_t last) {
        for (int64_t j = first; j < last; ++j) {
          const int64_t to = (o * p.k + j) * p.inner + i;
          if (values) values[to] = x[order[j] * p.inner];
          if (indices) indices[to] = order[j];
        }
      });
      if (!went_on) return;
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

void lower_top_k(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const size_t axis = axis_of(c, -1);
  const bool largest = c.version() < 11 || c.attr_int("largest", 1) != 0;
  const TopKParams p{x.shape.elements(0, axis), x.shape[axis], x.shape.elements(axis + 1, x.shape.rank()),
                     top_k_count(c)};
  const StepFn fn = dispatch<kNumberTypes>(
      x.dtype, [&]<class T>() -> StepFn { return largest ? run_top_k<true, T> : run_top_k<false, T>; });
  const size_t room = static_cast<size_t>(p.n) * sizeof(int64_t) * (sorts_all(p.n, p.k) ? 2 : 1);
  c.step(fn, p, {c.steady(0), c.out(0), c.out(1), c.scratch(room)}, static_cast<double>(x.shape.elements()) * 4);
}

}  // namespace

void register_arg(OpRegistry& r) {
  r.add({.name = "ArgMax", .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_arg}, lower_arg<true>);
  r.add({.name = "ArgMin", .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_arg}, lower_arg<false>);
  r.add({.name = "TopK", .until = 9, .min_inputs = 1, .max_inputs = 1, .max_outputs = 2, .infer = infer_top_k},
        lower_top_k);
  r.add({.name = "TopK", .since = 10, .min_inputs = 2, .max_inputs = 2, .max_outputs = 2, .infer = infer_top_k},
        lower_top_k);
}

}  // namespace inferkit
