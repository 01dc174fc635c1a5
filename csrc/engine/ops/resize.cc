// Resize and Upsample. Nearest moves elements; the other modes run one pass per axis that changes, each output being a
// weighted sum of a few inputs whose places and weights are worked out when the plan is compiled.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/compile/op_registry.h"
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

enum class Mode : uint8_t { kNearest, kLinear, kCubic };

/// One axis, as attributes and inputs say.
struct AxisPlan {
  int64_t in = 1, out = 1;
  double scale = 1;  // out / in, before that was rounded to elements
  double roi_begin = 0, roi_end = 1;
};

struct ResizePlan {
  Mode mode = Mode::kNearest;
  std::string coordinates, nearest;
  std::vector<AxisPlan> axes;
  double cubic_a = -0.75;
  bool exclude_outside = false, antialias = false;
  float extrapolation = 0;
};

std::vector<float> const_floats(const NodeContext& c, size_t i) {
  if (!c.has_input(i) || c.input(i).shape.elements() == 0) return {};
  const TensorFacts& facts = c.input(i);
  const Tensor& value = c.known_value(i);
  std::vector<float> out(static_cast<size_t>(facts.shape.elements()));
  const bool known = dispatch<kFloatTypes>(facts.dtype, [&]<class T>() {
    for (size_t k = 0; k < out.size(); ++k) out[k] = static_cast<float>(load(value.as<T>()[k]));
    return true;
  });
  if (!known) c.fail(cat("input ", i, " must be float"));
  return out;
}

struct Fraction {
  int64_t over, under;
};

/// The fraction of the smallest terms in [low, high], by continued fractions: what the two have in common, and then the
/// least whole number between them.
Fraction simplest(Fraction low, Fraction high) {
  const int64_t whole = low.over / low.under, rest = low.over % low.under;
  if (rest == 0) return {whole, 1};
  if ((whole + 1) * high.under <= high.over) return {whole + 1, 1};
  const Fraction r = simplest({high.under, high.over - whole * high.under}, {low.under, rest});
  return {whole * r.over + r.under, r.over};
}

/// The scale that was rounded to float32: the simplest fraction that rounds to it. Exporters have the scale in double,
/// 1.3 or 224 / 300, and file it in float32; multiplied by a length, what it lost then decides about an element.
double meant_scale(float scale) {
  int exponent = 0;
  const auto digits = static_cast<int64_t>(std::ldexp(std::frexp(scale, &exponent), 26));  // 4 units in the last place
  if (exponent < -20 || exponent > 20) return static_cast<double>(scale);
  const int64_t below = digits == int64_t{1} << 25 ? 1 : 2;  // half of a step; floats lie closer below a power of two
  const int64_t one = int64_t{1} << (exponent < 0 ? 26 - exponent : 26),
                times = exponent > 0 ? int64_t{1} << exponent : 1;
  const Fraction f = simplest({(digits - below) * times, one}, {(digits + 2) * times, one});
  return static_cast<double>(f.over) / static_cast<double>(f.under);
}

int64_t whole_size(const NodeContext& c, double size) {
  constexpr double kMost = 1e12;
  if (!(size <= kMost)) c.fail(cat("the output is too large: ", size, " along an axis; expected at most ", kMost));
  return static_cast<int64_t>(std::floor(size));
}

void set_scale(const NodeContext& c, AxisPlan& a, float scale) {
  if (!(scale > 0) || !std::isfinite(scale)) c.fail(cat("a scale of ", scale));
  a.scale = meant_scale(scale);
  a.out = whole_size(c, static_cast<double>(a.in) * a.scale);
}

/// The attribute `name`, which must be one of `known`.
std::string one_of(const NodeContext& c, std::string_view name, std::string_view fallback,
                   std::initializer_list<std::string_view> known) {
  std::string value = c.attr_string(name, fallback);
  if (std::find(known.begin(), known.end(), value) == known.end()) c.unsupported(cat(name, " ", value));
  return value;
}

std::string policy_of(const NodeContext& c) {
  return one_of(c, "keep_aspect_ratio_policy", "stretch", {"stretch", "not_larger", "not_smaller"});
}

/// Sizes as wished, or as close as the aspect ratio allows.
void set_sizes(const NodeContext& c, ResizePlan& p, const std::vector<size_t>& axes,
               const std::vector<int64_t>& sizes) {
  const std::string policy = policy_of(c);
  double common = 0;
  for (size_t k = 0; k < axes.size(); ++k) {
    AxisPlan& a = p.axes[axes[k]];
    if (sizes[k] < 0 || (a.in == 0 && sizes[k] != 0)) c.fail(cat("a size of ", sizes[k], " from ", a.in));
    a.out = sizes[k];
    a.scale = a.in == 0 ? 1 : static_cast<double>(a.out) / static_cast<double>(a.in);
    const bool better = policy == "not_larger" ? a.scale < common : a.scale > common;
    if (k == 0 || better) common = a.scale;
  }
  if (policy == "stretch") return;
  for (size_t i : axes) {
    AxisPlan& a = p.axes[i];
    a.scale = common;
    a.out = whole_size(c, common * static_cast<double>(a.in) + 0.5);
  }
}

/// What the attributes say.
ResizePlan read_attributes(const NodeContext& c) {
  const bool upsample = c.node().op_type == "Upsample", old = upsample || c.version() < 11;
  ResizePlan p;
  const std::string mode = c.attr_string("mode", "nearest");
  if (mode == "cubic" && !old)
    p.mode = Mode::kCubic;
  else if (mode == "linear" || mode == "bilinear")
    p.mode = Mode::kLinear;
  else if (mode != "nearest")
    c.unsupported("mode " + mode);
  p.coordinates = old ? "asymmetric"
                      : one_of(c, "coordinate_transformation_mode", "half_pixel",
                               {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel",
                                "half_pixel_symmetric", "tf_crop_and_resize"});
  p.nearest = old || p.mode != Mode::kNearest ? "floor"
                                              : one_of(c, "nearest_mode", "round_prefer_floor",
                                                       {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"});
  if (!old) policy_of(c);
  p.cubic_a = static_cast<double>(c.attr_float("cubic_coeff_a", -0.75f));
  p.exclude_outside = c.attr_int("exclude_outside", 0) != 0;
  p.antialias = c.attr_int("antialias", 0) != 0 && p.mode != Mode::kNearest;
  p.extrapolation = c.attr_float("extrapolation_value", 0);
  return p;
}

ResizePlan resize_plan(const NodeContext& c) {
  ResizePlan p = read_attributes(c);
  const bool upsample = c.node().op_type == "Upsample", old = upsample || c.version() < 11;
  if (p.mode != Mode::kNearest) require_type(c, 0, kInterpolated);  // before what only a run may know
  const Shape& x = c.input(0).shape;
  for (int64_t d : x.dims()) p.axes.push_back({d, d, 1, 0, 1});

  std::vector<size_t> axes;
  for (int64_t axis : c.attr_ints("axes"))
    axes.push_back(static_cast<size_t>(c.resolve_axis(axis, static_cast<int64_t>(x.rank()))));
  if (!c.has_attr("axes")) {
    for (size_t i = 0; i < x.rank(); ++i) axes.push_back(i);
  }
  const std::vector<float> scales =
      upsample && c.version() < 9 ? c.attr_floats("scales") : const_floats(c, old ? 1 : 2);
  const bool by_sizes = !old && c.has_input(3) && c.input(3).shape.elements() > 0;
  const std::vector<int64_t> sizes = by_sizes ? c.const_ints(3) : std::vector<int64_t>{};
  if (by_sizes == !scales.empty() && !axes.empty()) c.fail("expected either scales or sizes");
  if ((by_sizes ? sizes.size() : scales.size()) != axes.size())
    c.fail(cat("expected ", axes.size(), " scales or sizes, got ", by_sizes ? sizes.size() : scales.size()));
  if (by_sizes) {
    set_sizes(c, p, axes, sizes);
  } else {
    for (size_t k = 0; k < axes.size(); ++k) set_scale(c, p.axes[axes[k]], scales[k]);
  }
  if (p.coordinates == "tf_crop_and_resize") {
    const std::vector<float> roi = const_floats(c, 1);
    if (roi.size() != 2 * axes.size()) c.fail(cat("roi has ", roi.size(), " values, expected ", 2 * axes.size()));
    if (!std::all_of(roi.begin(), roi.end(), [](float v) { return std::isfinite(v); })) c.fail("roi is not finite");
    for (size_t k = 0; k < axes.size(); ++k) {
      p.axes[axes[k]].roi_begin = static_cast<double>(roi[k]);
      p.axes[axes[k]].roi_end = static_cast<double>(roi[axes.size() + k]);
    }
  }
  return p;
}

void infer_resize(InferContext& c) {
  const ResizePlan p = resize_plan(c);
  Shape out;
  for (const AxisPlan& a : p.axes) out.push_back(a.out);
  c.set_output(0, c.input(0).dtype, out);
}

// ---- Where an output comes from ------------------------------------------------------------------------------------

/// Output o is the sum of weights[o taps + t] * input[index[o taps + t]]; an index of -1 in its first tap stands for
/// the extrapolation value.
struct Table {
  int64_t taps = 1;
  std::vector<int64_t> index;
  std::vector<double> weights;

  bool is_identity(const AxisPlan& a) const {
    if (a.in != a.out) return false;
    for (int64_t o = 0; o < a.out; ++o) {
      for (int64_t t = 0; t < taps; ++t) {
        const auto at = static_cast<size_t>(o * taps + t);
        if (weights[at] != 0 && (index[at] != o || weights[at] != 1)) return false;
      }
    }
    return true;
  }
  bool extrapolates() const { return std::find(index.begin(), index.end(), -1) != index.end(); }
};

/// torch, from which models with these coordinates come, copies an axis whose length stays, whatever its scale: in its
/// linear modes, and in "nearest" where that is of images, not of lines or volumes.
bool is_copied(const ResizePlan& p, const AxisPlan& a) {
  if (a.in != a.out || p.antialias || p.coordinates == "half_pixel_symmetric" || p.coordinates == "tf_crop_and_resize")
    return false;
  return p.mode == Mode::kLinear || (p.mode == Mode::kNearest && p.axes.size() == 4);
}

/// The place in the input of output `o`.
double source_of(const NodeContext& c, const ResizePlan& p, const AxisPlan& a, int64_t o) {
  const auto x = static_cast<double>(o), in = static_cast<double>(a.in), out = static_cast<double>(a.out);
  if (is_copied(p, a)) return x;
  if (p.coordinates == "half_pixel") return (x + 0.5) / a.scale - 0.5;
  if (p.coordinates == "asymmetric") {
    // torch's "nearest" counts in float32, which decides where the place is a whole number but for its rounding; but an
    // axis of an image that becomes twice as long has each pixel twice, whatever its scale.
    if (p.nearest == "floor" && p.mode == Mode::kNearest && p.axes.size() == 4 && a.out == 2 * a.in) return x / 2;
    if (p.nearest == "floor" && p.mode == Mode::kNearest)
      return static_cast<double>(static_cast<float>(o) * static_cast<float>(1 / a.scale));
    return x / a.scale;
  }
  if (p.coordinates == "align_corners") return a.out == 1 ? 0 : x * (in - 1) / (out - 1);
  if (p.coordinates == "pytorch_half_pixel") return a.out == 1 ? 0 : (x + 0.5) / a.scale - 0.5;
  if (p.coordinates == "half_pixel_symmetric") {
    const double adjustment = out / (a.scale * in);
    return in / 2 * (1 - adjustment) + (x + 0.5) / a.scale - 0.5;
  }
  if (p.coordinates == "tf_crop_and_resize") {
    const double extent = (a.roi_end - a.roi_begin) * (in - 1);
    return a.roi_begin * (in - 1) + (a.out == 1 ? extent / 2 : x * extent / (out - 1));
  }
  c.fail("coordinate_transformation_mode " + p.coordinates);  // not reached: read_attributes knows them all
}

double cubic(double x, double a) {
  x = std::abs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/// The weight of the right one of two neighbours, 0 or 1; the place lies `ratio` in (0, 1] behind the left one.
double nearest_weight(const NodeContext& c, const ResizePlan& p, double ratio) {
  if (ratio == 1) return 1;
  if (p.nearest == "round_prefer_floor") return ratio > 0.5;
  if (p.nearest == "round_prefer_ceil") return ratio >= 0.5;
  if (p.nearest == "floor") return 0;
  if (p.nearest == "ceil") return 1;
  c.fail("nearest_mode " + p.nearest);  // not reached, as above
}

Table make_table(const NodeContext& c, const ResizePlan& p, const AxisPlan& a) {
  const double shrink = p.antialias ? std::min(a.scale, 1.0) : 1;  // how far the filter is stretched
  const double support = p.mode == Mode::kCubic ? 2 : 1;
  constexpr double kMostTaps = 1 << 20, kFar = 1e15;  // far: out of any image, but a number that int64 has
  if (!(2 * support / shrink < kMostTaps))
    c.unsupported(cat("a scale of ", a.scale, ", for which a value is made of more than ", kMostTaps, " others"));
  const auto start = static_cast<int64_t>(std::floor(-support / shrink)) + 1;
  Table table;
  table.taps = p.mode == Mode::kNearest ? 1 : 2 - 2 * start;
  constexpr int64_t kLargest = 1 << 24;  // 16 bytes each, made at every new shape
  if (a.out > kLargest / table.taps) c.unsupported(cat("a dimension of ", a.out, " with ", table.taps, " taps each"));
  for (int64_t o = 0; o < a.out; ++o) {
    const double place = std::clamp(source_of(c, p, a, o), -kFar, kFar);
    const double left = std::ceil(place) - 1, ratio = place - left;
    const auto base = static_cast<int64_t>(left);
    const auto clamp = [&](int64_t i) { return std::clamp<int64_t>(i, 0, a.in - 1); };
    const bool outside = p.coordinates == "tf_crop_and_resize" && (place < 0 || place > static_cast<double>(a.in - 1));
    if (p.mode == Mode::kNearest) {
      table.index.push_back(outside ? -1 : clamp(base + static_cast<int64_t>(nearest_weight(c, p, ratio))));
      table.weights.push_back(1);
      continue;
    }
    double sum = 0;
    const size_t first = table.weights.size();
    for (int64_t t = 0; t < table.taps; ++t) {
      const int64_t i = base + start + t;
      const double d = (static_cast<double>(start + t) - ratio) * shrink;
      double w = p.mode == Mode::kCubic ? cubic(d, p.cubic_a) : std::max(0.0, 1 - std::abs(d));
      if (p.exclude_outside && (i < 0 || i >= a.in)) w = 0;
      table.index.push_back(outside ? -1 : clamp(i));
      table.weights.push_back(w);
      sum += w;
    }
    if (!p.antialias && !p.exclude_outside) continue;  // they sum to 1 already
    for (size_t i = first; i < table.weights.size(); ++i) table.weights[i] /= sum;
  }
  return table;
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
  bool whole_rows;                                             // the last axis is copied as it is
};

/// io: y, x, index.
template <class W>
void run_nearest(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const NearestParams*>(params);
  const auto* index = reinterpret_cast<const int64_t*>(io[2]);
  const auto last = static_cast<size_t>(p.rank - 1);
  const int64_t width = p.out[last];
  int64_t rows = 1;
  for (size_t d = 0; d < last; ++d) rows *= p.out[d];
  for_rows(context, rows, width, [&](int64_t row) {
    const W* x = reinterpret_cast<const W*>(io[1]);
    W* y = reinterpret_cast<W*>(io[0]) + row * width;
    int64_t rest = row;
    for (size_t d = last; d-- > 0; rest /= p.out[d]) x += index[p.table[d] + rest % p.out[d]] * p.in_stride[d];
    if (p.whole_rows) {
      std::memcpy(y, x, static_cast<size_t>(width) * sizeof(W));
      return;
    }
    const int64_t* from = index + p.table[last];
    for (int64_t i = 0; i < width; ++i) y[i] = x[from[i]];
  });
}

void lower_nearest(LowerContext& c, const ResizePlan& p, const std::vector<Table>& tables) {
  const Shape& x = c.input(0).shape;
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
  n.whole_rows = tables.back().is_identity(p.axes.back());
  const StepFn fn = dispatch_width(c.input(0).dtype, []<class W>() -> StepFn { return run_nearest<W>; });
  if (!fn) c.unsupported("strings");
  c.step(fn, n, {c.out(0), c.in(0), keep(c, std::move(index))},
         static_cast<double>(c.output(0).shape.elements()) * 1.5);
}

// ---- Interpolation: one step per axis ------------------------------------------------------------------------------

/// What the passes count in.
template <class T>
using Sum = std::conditional_t<std::is_integral_v<T>, double, Compute<T>>;

/// Integers are cut off, as ONNX has it, and stop at their bounds. What lies a rounding error below a whole number is
/// that number: thirds of 100 are to make 100, not 99. The error is of the size of the number; of 16 bits and less it
/// stays below anything that a fraction of lengths makes.
template <class T>
T rounded(Sum<T> v) {
  if constexpr (std::is_integral_v<T>) {
    const double error = std::max(1e-9, std::abs(v) * 0x1p-47);
    return saturated<T>(v < 0 ? v - error : v + error);
  } else {
    return store<T>(v);
  }
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
            part += static_cast<C>(weights[o * p.taps + t]) * static_cast<C>(load(x[at[t]]));
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
          for (int64_t i = 0; i < n; ++i) to[i] += w * static_cast<C>(load(from[i]));
        }
        for (int64_t i = 0; to == part && i < n; ++i) sum[i] += part[i];
      }
      for (int64_t i = 0; i < n; ++i) y[first + i] = rounded<To>(static_cast<Sum<To>>(sum[i]));
    }
  });
}

/// Passes from the last axis to the first; what lies between two is kept in the type that arithmetic is done in.
template <class T>
void lower_passes(LowerContext& c, const ResizePlan& p, const std::vector<Table>& tables) {
  using C = Sum<T>;
  std::vector<size_t> axes;
  for (size_t d = tables.size(); d-- > 0;) {
    if (!tables[d].is_identity(p.axes[d])) axes.push_back(d);
  }
  Shape shape = c.input(0).shape;
  Ref from = c.in(0);
  for (size_t k = 0; k < axes.size(); ++k) {
    const size_t d = axes[k];
    const bool first = k == 0, last = k + 1 == axes.size();
    PassParams pass{shape.elements(0, d), shape[d],       p.axes[d].out, shape.elements(d + 1, shape.rank()),
                    tables[d].taps,       p.extrapolation};
    shape[d] = pass.out;
    const Ref to = last ? c.out(0) : c.scratch(static_cast<size_t>(shape.elements()) * sizeof(C));
    const StepFn fn = first && last ? run_pass<T, T> : first ? run_pass<C, T> : last ? run_pass<T, C> : run_pass<C, C>;
    c.step(fn, pass, {to, from, keep(c, tables[d].index), keep(c, tables[d].weights)},
           static_cast<double>(shape.elements() * pass.taps));
    from = to;
  }
}

void lower_resize(LowerContext& c) {
  const ResizePlan p = resize_plan(c);
  if (c.output(0).shape.elements() == 0) return;
  std::vector<Table> tables;
  bool identity = true, extrapolates = false;
  for (const AxisPlan& a : p.axes) {
    tables.push_back(make_table(c, p, a));
    identity = identity && tables.back().is_identity(a);
    extrapolates = extrapolates || tables.back().extrapolates();
  }
  if (identity) return c.alias(0, 0);
  if (p.mode == Mode::kNearest && !extrapolates) return lower_nearest(c, p, tables);
  const bool done = dispatch<kInterpolated>(c.input(0).dtype, [&]<class T>() {
    lower_passes<T>(c, p, tables);
    return true;
  });
  if (!done) c.unsupported(cat("interpolation of ", dtype_name(c.input(0).dtype)));
}

}  // namespace

void register_resize(OpRegistry& r) {
  const OpSchema base{
      .name = "Resize", .max_outputs = 1, .infer = infer_resize, .mixed_axes = mixed_where_sizes_change};
  const auto add = [&](std::string_view name, int since, int until, int min_inputs, int max_inputs) {
    OpSchema row = base;
    row.name = name;
    row.since = since;
    row.until = until;
    row.min_inputs = min_inputs;
    row.max_inputs = max_inputs;
    r.add(row, lower_resize);
  };
  add("Upsample", 7, 8, 1, 1);
  add("Upsample", 9, 9, 2, 2);
  add("Resize", 10, 10, 2, 2);
  add("Resize", 11, 1'000'000, 1, 4);
}

}  // namespace inferkit
