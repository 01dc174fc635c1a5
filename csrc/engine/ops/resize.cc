// Resize and Upsample. Nearest moves elements; the other modes run one pass per axis that changes, each output being a
// weighted sum of a few inputs whose places and weights are worked out when the plan is compiled.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/compile/layouts.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/resize_plan.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/saturate.h"
#include "kernels/summation.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

constexpr int64_t kParallelElements = 1 << 16;
constexpr TypeSet kInterpolated =  // double has every integer of 32 bits and the sums of them
    kFloatTypes | types(DType::kU8, DType::kI8, DType::kU16, DType::kI16, DType::kU32, DType::kI32);

void infer_resize(InferContext& c) {
  // Before what only a run may know.
  if (resize_attributes(c).mode != ResizeMode::kNearest) require_type(c, 0, kInterpolated);
  const ResizePlan p = resize_plan(c);
  Shape out;
  for (const ResizeAxis& a : p.axes) out.push_back(a.out);
  c.set_output(0, c.input(0).dtype, out);
}

template <class T>
Ref keep(LowerContext& c, std::vector<T> values) {
  const auto owner = std::make_shared<const std::vector<T>>(std::move(values));
  return c.constant(owner->data(), owner);
}

template <class F>
void for_rows(const ExecContext& context, int64_t rows, int64_t elements_each, F&& body) {
  if (!context.pool || context.max_threads < 2 || rows * elements_each < kParallelElements) {
    WorkMeter meter;
    for_blocks(meter, 0, rows, std::max<int64_t>(1, elements_each), [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) body(i);
    });
  } else {
    context.pool->parallel_for(rows, context.max_threads, body);
  }
}

// ---- Nearest: any type, one step -----------------------------------------------------------------------------------

struct NearestParams {
  int32_t rank;
  std::array<int64_t, Shape::kMaxRank> out, in_stride, table;  // table: where an axis begins in the index
  int64_t repeats;  // each element of the last axis follows so many times; 0 where the index says which
};

constexpr int64_t kMostRepeats = 4;         // that have a loop of their own
constexpr int64_t kNearestElements = 4096;  // of the rows that a thread makes one after the other

/// Each of n elements R times.
template <int R, class W>
void widen(const W* __restrict x, W* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    for (int r = 0; r < R; ++r) y[i * R + r] = x[i];
  }
}

template <class W>
void nearest_row(const W* x, W* y, const int64_t* index, int64_t width, int64_t repeats) {
  if (repeats == 1) {
    std::memcpy(y, x, static_cast<size_t>(width) * sizeof(W));
    return;
  }
  if constexpr (std::is_integral_v<W>) {
    if (repeats == 2) return widen<2>(x, y, width / 2);
    if (repeats == 3) return widen<3>(x, y, width / 3);
    if (repeats == 4) return widen<4>(x, y, width / 4);
  }
  for (int64_t i = 0; i < width; ++i) y[i] = x[index[i]];
}

/// The rows [first, end) of y. One that has the source of the row before it is a copy of that.
template <class W>
void nearest_rows(const NearestParams& p, std::byte* const* io, int64_t first, int64_t end) {
  const auto* index = reinterpret_cast<const int64_t*>(io[2]);
  const auto last = static_cast<size_t>(p.rank - 1);
  const int64_t width = p.out[last], tall = last > 0 ? p.out[last - 1] : 1;
  W* y = reinterpret_cast<W*>(io[0]) + first * width;
  for (int64_t row = first; row < end;) {
    // As many as differ in the last dimension but one alone.
    const int64_t plane = row / tall, stop = std::min(end, (plane + 1) * tall);
    const W* x = reinterpret_cast<const W*>(io[1]);
    int64_t rest = plane;
    for (size_t d = std::max<size_t>(last, 1) - 1; d-- > 0; rest /= p.out[d]) {
      x += index[p.table[d] + rest % p.out[d]] * p.in_stride[d];
    }
    const int64_t* from = last > 0 ? index + p.table[last - 1] - plane * tall : nullptr;
    for (int64_t before = -1; row < stop; ++row, y += width) {
      const int64_t at = from ? from[row] : 0;
      if (at == before) {
        std::memcpy(y, y - width, static_cast<size_t>(width) * sizeof(W));
      } else {
        const int64_t place = from ? at * p.in_stride[last - 1] : 0;
        nearest_row(x + place, y, index + p.table[last], width, p.repeats);
      }
      before = at;
    }
  }
}

/// io: y, x, index.
template <class W>
void run_nearest(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const NearestParams*>(params);
  const auto last = static_cast<size_t>(p.rank - 1);
  int64_t rows = 1;
  for (size_t d = 0; d < last; ++d) rows *= p.out[d];
  const int64_t width = p.out[last], block = std::max<int64_t>(1, kNearestElements / width);
  if (!context.pool || context.max_threads < 2 || rows * width < kParallelElements) {
    WorkMeter meter;
    for_blocks(meter, 0, rows, width, [&](int64_t first, int64_t end) { nearest_rows<W>(p, io, first, end); });
  } else {
    context.pool->parallel_for((rows + block - 1) / block, context.max_threads,
                               [&](int64_t i) { nearest_rows<W>(p, io, i * block, std::min(rows, (i + 1) * block)); });
  }
}

/// How often each element of the last axis follows; 0 where it is not the same for all, or too often.
int64_t repeats_of(const ResizeTable& table, const ResizeAxis& a) {
  const int64_t repeats = a.in > 0 ? a.out / a.in : 0;
  if (repeats < 1 || repeats > kMostRepeats || a.out != repeats * a.in || table.taps != 1) return 0;
  for (int64_t o = 0; o < a.out; ++o) {
    if (table.index[static_cast<size_t>(o)] != o / repeats) return 0;
  }
  return repeats;
}

/// As measured: what moves an element, and what interpolates one along two axes.
double resize_nanos(const NodeContext& c, ResizeMode mode, bool blocks) {
  const double each = mode == ResizeMode::kNearest ? 0.2 : blocks ? 1.2 : 1.6;
  return static_cast<double>(c.output(0).shape.elements()) * each;
}

/// Of the nearest elements, plain: of rows, of which some are copies of others, and of what they hold.
double nearest_nanos(const NodeContext& c, const ResizePlan& p, int64_t repeats) {
  const Shape& out = c.output(0).shape;
  const auto last = static_cast<int64_t>(out.rank()) - 1;
  const double made = last > 0 ? std::min(1.0, 1 / p.axes[static_cast<size_t>(last - 1)].scale) : 1;
  const double each = 0.01 + 0.025 * static_cast<double>(dtype_size(c.input(0).dtype)) + (repeats > 0 ? 0 : 0.3 * made);
  return static_cast<double>(out.elements(0, static_cast<size_t>(last))) * 1.5 +
         static_cast<double>(out.elements()) * each;
}

/// The sixteen channels of a block move together.
struct Pixel {
  float channels[kBlockChannels];
};

/// `x`: the shape of the input; where it lies in blocks, that of its pixels.
void lower_nearest(LowerContext& c, const ResizePlan& p, const std::vector<ResizeTable>& tables, const Shape& x,
                   bool blocks) {
  const auto strides = x.strides();
  NearestParams n{};
  n.rank = static_cast<int32_t>(x.rank());
  std::vector<int64_t> index;
  for (size_t d = 0; d < x.rank(); ++d) {
    n.out[d] = p.axes[d].out;
    n.in_stride[d] = strides[d];
    n.table[d] = static_cast<int64_t>(index.size());
    index.insert(index.end(), tables[d].index.begin(), tables[d].index.end());
  }
  n.repeats = repeats_of(tables.back(), p.axes.back());
  const StepFn fn = blocks ? run_nearest<Pixel>
                           : dispatch_width(c.input(0).dtype, []<class W>() -> StepFn { return run_nearest<W>; });
  if (!fn) c.unsupported("strings");
  const double nanos = blocks ? resize_nanos(c, p.mode, true) : nearest_nanos(c, p, n.repeats);
  c.step(fn, n, {c.out(0), c.in(0), keep(c, std::move(index))}, nanos);
}

// ---- Interpolation: one step per axis ------------------------------------------------------------------------------

/// What the passes count in.
template <class T>
using Sum = std::conditional_t<std::is_integral_v<T>, double, T>;

/// Integers are cut off, as ONNX has it, and stop at their bounds. What lies a rounding error below a whole number is
/// that number: thirds of 100 are to make 100, not 99. The error is of the size of the number; of 16 bits and less it
/// stays below anything that a fraction of lengths makes.
template <class T>
T rounded(Sum<T> v) {
  if constexpr (std::is_integral_v<T>) {
    const double error = std::max(1e-9, std::abs(v) * 0x1p-47);
    return saturated<T>(v < 0 ? v - error : v + error);
  } else {
    return v;
  }
}

struct RoundParams {
  int64_t count;
};
template <class T>
void round_step(const void* params, std::byte* const* io, const ExecContext&) {
  in_blocks(static_cast<const RoundParams*>(params)->count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      reinterpret_cast<T*>(io[1])[i] = rounded<T>(reinterpret_cast<const double*>(io[0])[i]);
    }
  });
}

struct PassParams {
  int64_t outer, in, out, inner, taps;
  float extrapolation;
};

/// [outer, in, inner] to [outer, out, inner]. io: y, x, index, weights.
template <class To, class From>
void run_pass(const void* params, std::byte* const* io, const ExecContext& context) {
  using C = Sum<From>;
  const auto& p = *static_cast<const PassParams*>(params);
  const auto* index = reinterpret_cast<const int64_t*>(io[2]);
  const auto* weights = reinterpret_cast<const double*>(io[3]);
  const auto outside = rounded<To>(static_cast<Sum<To>>(p.extrapolation));
  const int64_t chunk = kernels::sum_chunk(p.taps);
  if (p.inner == 1) {
    for_rows(context, p.outer, p.out * p.taps, [&](int64_t row) {
      const From* x = reinterpret_cast<const From*>(io[1]) + row * p.in;
      To* y = reinterpret_cast<To*>(io[0]) + row * p.out;
      for (int64_t o = 0; o < p.out; ++o) {
        const int64_t* at = index + o * p.taps;
        if (at[0] < 0) {
          y[o] = outside;
          continue;
        }
        const auto sum_from = [&](int64_t first) {
          C part = 0;
          for (int64_t t = first; t < std::min(p.taps, first + chunk); ++t)
            part += static_cast<C>(weights[o * p.taps + t]) * static_cast<C>(x[at[t]]);
          return part;
        };
        C sum = sum_from(0);
        for (int64_t t = chunk; t < p.taps; t += chunk) sum += sum_from(t);
        y[o] = rounded<To>(static_cast<Sum<To>>(sum));
      }
    });
    return;
  }
  constexpr int64_t kBlock = 256;
  for_rows(context, p.outer * p.out, p.inner * p.taps, [&](int64_t row) {
    const int64_t o = row % p.out, *at = index + o * p.taps;
    const From* x = reinterpret_cast<const From*>(io[1]) + row / p.out * p.in * p.inner;
    To* y = reinterpret_cast<To*>(io[0]) + row * p.inner;
    if (at[0] < 0) {
      std::fill(y, y + p.inner, outside);
      return;
    }
    C sum[kBlock], part[kBlock];
    for (int64_t first = 0; first < p.inner; first += kBlock) {
      const int64_t n = std::min(kBlock, p.inner - first);
      for (int64_t begin = 0; begin < p.taps; begin += chunk) {
        C* const to = begin == 0 ? sum : part;
        std::fill(to, to + n, C{0});
        for (int64_t t = begin; t < std::min(p.taps, begin + chunk); ++t) {
          const auto w = static_cast<C>(weights[o * p.taps + t]);
          const From* from = x + at[t] * p.inner + first;
          for (int64_t i = 0; i < n; ++i) to[i] += w * static_cast<C>(from[i]);
        }
        for (int64_t i = 0; to == part && i < n; ++i) sum[i] += part[i];
      }
      for (int64_t i = 0; i < n; ++i) y[first + i] = rounded<To>(static_cast<Sum<To>>(sum[i]));
    }
  });
}

/// Passes from the last axis to the first; what lies between two is kept in the type that arithmetic is done in. `from`
/// and `out` are of T.
template <class T>
void lower_passes(LowerContext& c, const ResizePlan& p, const std::vector<ResizeTable>& tables, Shape shape, Ref from,
                  Ref out) {
  using C = Sum<T>;
  std::vector<size_t> axes;
  for (size_t d = tables.size(); d-- > 0;) {
    if (!tables[d].is_identity(p.axes[d])) axes.push_back(d);
  }
  for (size_t k = 0; k < axes.size(); ++k) {
    const size_t d = axes[k];
    const bool first = k == 0, last = k + 1 == axes.size();
    PassParams pass{shape.elements(0, d), shape[d],       p.axes[d].out, shape.elements(d + 1, shape.rank()),
                    tables[d].taps,       p.extrapolation};
    shape[d] = pass.out;
    const Ref to = last ? out : c.scratch(static_cast<size_t>(shape.elements()) * sizeof(C));
    const StepFn fn = first && last ? run_pass<T, T> : first ? run_pass<C, T> : last ? run_pass<T, C> : run_pass<C, C>;
    c.step(fn, pass, {to, from, keep(c, tables[d].index), keep(c, tables[d].weights)},
           multiplied(shape.elements(), pass.taps));
    from = to;
  }
}

/// An axis that stays as it is.
ResizeTable same_places(int64_t n) {
  ResizeTable table;
  for (int64_t i = 0; i < n; ++i) table.index.push_back(i);
  table.weights.assign(static_cast<size_t>(n), 1.0);
  return table;
}

/// Where the channels stay as they are, their blocks do.
Cost resize_blocks_cost(const NodeContext& c) {
  const ResizePlan p = resize_plan(c);
  if (!resize_table(c, p, p.axes[1]).is_identity(p.axes[1])) return Cost::cannot("the channels change");
  return Cost(resize_nanos(c, p.mode, true));
}
Cost resize_cost(const NodeContext& c) {
  const ResizePlan p = resize_plan(c);
  const bool nothing = p.axes.empty() || c.output(0).shape.elements() == 0;
  if (p.mode != ResizeMode::kNearest || nothing) return Cost(resize_nanos(c, p.mode, false));
  return Cost(nearest_nanos(c, p, repeats_of(resize_table(c, p, p.axes.back()), p.axes.back())));
}

void lower_resize(LowerContext& c) {
  ResizePlan p = resize_plan(c);
  if (c.output(0).shape.elements() == 0) return;
  std::vector<ResizeTable> tables;
  bool identity = true, extrapolates = false;
  for (const ResizeAxis& a : p.axes) {
    tables.push_back(resize_table(c, p, a));
    identity = identity && tables.back().is_identity(a);
    extrapolates = extrapolates || tables.back().extrapolates();
  }
  if (identity) return c.alias(0, 0);
  Shape shape = c.input(0).shape;
  const bool blocks = c.wanted(0) == Layout::kBlocks;
  if (blocks) {
    shape[1] /= kBlockChannels;
    p.axes[1] = {shape[1], shape[1]};
    tables[1] = same_places(shape[1]);
  }
  if (p.mode == ResizeMode::kNearest && !extrapolates) return lower_nearest(c, p, tables, shape, blocks);
  if (blocks) {
    shape.push_back(kBlockChannels);
    p.axes.push_back({kBlockChannels, kBlockChannels});
    tables.push_back(same_places(kBlockChannels));
  }
  // Images are of bytes; other integers, and half types, become what the passes count in, all of them, and come back.
  const DType type = c.input(0).dtype;
  if (!contains(kInterpolated, type)) c.unsupported(cat("interpolation of ", dtype_name(type)));
  if (type == DType::kU8) return lower_passes<uint8_t>(c, p, tables, shape, c.in(0), c.out(0));
  const DType sums = is_float(type) ? compute_type(type) : DType::kF64;
  const Ref from = converted(c, c.in(0), type, sums, c.input(0).shape.elements());
  const Ref out = begin_output(c, 0, sums);
  sums == DType::kF32 ? lower_passes<float>(c, p, tables, shape, from, out)
                      : lower_passes<double>(c, p, tables, shape, from, out);
  if (is_float(type)) return end_output(c, 0, out, sums);
  const StepFn fn = dispatch<kInterpolated & kIntegerTypes>(type, []<class T>() -> StepFn { return round_step<T>; });
  const int64_t n = c.output(0).shape.elements();
  c.step(fn, RoundParams{n}, {out, c.out(0)}, static_cast<double>(n));
}

/// Where an axis does not stay as it is, or would not with another number of elements.
Axes mixed_by_resize(const NodeContext& c, size_t i) {
  if (i != 0) return 0;
  const ResizePlan p = resize_plan(c);
  Axes out = 0;
  for (size_t d = 0; d < p.axes.size(); ++d) {
    const ResizeAxis& a = p.axes[d];
    const bool keeps = a.in == a.out && a.scale == 1 && resize_table(c, p, a).is_identity(a);
    if (!keeps) out = static_cast<Axes>(out | one_axis(static_cast<int64_t>(d)));
  }
  return out;
}

}  // namespace

void register_resize(OpRegistry& r) {
  const OpSchema base{.name = "Resize", .max_outputs = 1, .infer = infer_resize, .mixed_axes = mixed_by_resize};
  const auto add = [&](std::string_view name, int since, int until, int min_inputs, int max_inputs) {
    OpSchema row = base;
    row.name = name;
    row.since = since;
    row.until = until;
    row.min_inputs = min_inputs;
    row.max_inputs = max_inputs;
    r.add(row,
          std::vector<Lowering>{
              {.name = kOnlyLowering, .lower = lower_resize, .cost = resize_cost, .alike_cost = resize_blocks_cost}});
  };
  add("Upsample", 7, 8, 1, 1);
  add("Upsample", 9, 9, 2, 2);
  add("Resize", 10, 10, 2, 2);
  add("Resize", 11, 1'000'000, 1, 4);
}

}  // namespace inferkit
