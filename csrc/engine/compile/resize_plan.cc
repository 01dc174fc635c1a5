#include "engine/compile/resize_plan.h"

#include <algorithm>
#include <cmath>

#include "base/cat.h"
#include "base/counted.h"

namespace inferkit {
namespace {

std::vector<float> const_floats(const NodeContext& c, size_t i) {
  if (!c.has_input(i) || c.input(i).shape.elements() == 0) return {};
  const TensorFacts& facts = c.input(i);
  const Tensor& value = c.known_value(i);
  std::vector<float> out(static_cast<size_t>(facts.shape.elements()));
  for (size_t k = 0; k < out.size(); ++k) {
    switch (facts.dtype) {
      case DType::kF32:
        out[k] = value.as<float>()[k];
        break;
      case DType::kF64:
        out[k] = static_cast<float>(value.as<double>()[k]);
        break;
      case DType::kF16:
        out[k] = to_float(value.as<Half>()[k]);
        break;
      case DType::kBF16:
        out[k] = to_float(value.as<BFloat16>()[k]);
        break;
      default:
        c.fail(cat("input ", i, " must be float"));
    }
  }
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

void set_scale(const NodeContext& c, ResizeAxis& a, float scale) {
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
    ResizeAxis& a = p.axes[axes[k]];
    if (sizes[k] < 0 || (a.in == 0 && sizes[k] != 0)) c.fail(cat("a size of ", sizes[k], " from ", a.in));
    a.out = sizes[k];
    a.scale = a.in == 0 ? 1 : static_cast<double>(a.out) / static_cast<double>(a.in);
    const bool better = policy == "not_larger" ? a.scale < common : a.scale > common;
    if (k == 0 || better) common = a.scale;
  }
  if (policy == "stretch") return;
  for (size_t i : axes) {
    ResizeAxis& a = p.axes[i];
    a.scale = common;
    a.out = whole_size(c, common * static_cast<double>(a.in) + 0.5);
  }
}

}  // namespace

ResizePlan resize_attributes(const NodeContext& c) {
  const bool upsample = c.node().op_type == "Upsample", old = upsample || c.version() < 11;
  ResizePlan p;
  const std::string mode = c.attr_string("mode", "nearest");
  if (mode == "cubic" && !old)
    p.mode = ResizeMode::kCubic;
  else if (mode == "linear" || mode == "bilinear")
    p.mode = ResizeMode::kLinear;
  else if (mode != "nearest")
    c.unsupported("mode " + mode);
  p.coordinates = old ? "asymmetric"
                      : one_of(c, "coordinate_transformation_mode", "half_pixel",
                               {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel",
                                "half_pixel_symmetric", "tf_crop_and_resize"});
  p.nearest = old || p.mode != ResizeMode::kNearest
                  ? "floor"
                  : one_of(c, "nearest_mode", "round_prefer_floor",
                           {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"});
  if (!old) policy_of(c);
  p.cubic_a = static_cast<double>(c.attr_float("cubic_coeff_a", -0.75f));
  p.exclude_outside = c.attr_int("exclude_outside", 0) != 0;
  p.antialias = c.attr_int("antialias", 0) != 0 && p.mode != ResizeMode::kNearest;
  p.extrapolation = c.attr_float("extrapolation_value", 0);
  return p;
}

ResizePlan resize_plan(const NodeContext& c) {
  ResizePlan p = resize_attributes(c);
  const bool upsample = c.node().op_type == "Upsample", old = upsample || c.version() < 11;
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
    c.fail(cat("expected ", counted(axes.size(), "scale"), " or sizes, got ", by_sizes ? sizes.size() : scales.size()));
  if (by_sizes) {
    set_sizes(c, p, axes, sizes);
  } else {
    for (size_t k = 0; k < axes.size(); ++k) set_scale(c, p.axes[axes[k]], scales[k]);
  }
  if (p.coordinates == "tf_crop_and_resize") {
    const std::vector<float> roi = const_floats(c, 1);
    if (roi.size() != 2 * axes.size())
      c.fail(cat("roi has ", counted(roi.size(), "value"), ", expected ", 2 * axes.size()));
    if (!std::all_of(roi.begin(), roi.end(), [](float v) { return std::isfinite(v); })) c.fail("roi is not finite");
    for (size_t k = 0; k < axes.size(); ++k) {
      p.axes[axes[k]].roi_begin = static_cast<double>(roi[k]);
      p.axes[axes[k]].roi_end = static_cast<double>(roi[axes.size() + k]);
    }
  }
  return p;
}

// ---- Where an output comes from ------------------------------------------------------------------------------------

namespace {

/// torch, from which models with these coordinates come, copies an axis whose length stays, whatever its scale: in its
/// linear modes, and in "nearest" where that is of images, not of lines or volumes.
bool is_copied(const ResizePlan& p, const ResizeAxis& a) {
  if (a.in != a.out || p.antialias || p.coordinates == "half_pixel_symmetric" || p.coordinates == "tf_crop_and_resize")
    return false;
  return p.mode == ResizeMode::kLinear || (p.mode == ResizeMode::kNearest && p.axes.size() == 4);
}

/// The place in the input of output `o`.
double source_of(const NodeContext& c, const ResizePlan& p, const ResizeAxis& a, int64_t o) {
  const auto x = static_cast<double>(o), in = static_cast<double>(a.in), out = static_cast<double>(a.out);
  if (is_copied(p, a)) return x;
  if (p.coordinates == "half_pixel") return (x + 0.5) / a.scale - 0.5;
  if (p.coordinates == "asymmetric") {
    // torch's "nearest" counts in float32, which decides where the place is a whole number but for its rounding; but an
    // axis of an image that becomes twice as long has each pixel twice, whatever its scale.
    if (p.nearest == "floor" && p.mode == ResizeMode::kNearest && p.axes.size() == 4 && a.out == 2 * a.in) return x / 2;
    if (p.nearest == "floor" && p.mode == ResizeMode::kNearest)
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

}  // namespace

ResizeTable resize_table(const NodeContext& c, const ResizePlan& p, const ResizeAxis& a) {
  const double shrink = p.antialias ? std::min(a.scale, 1.0) : 1;  // how far the filter is stretched
  const double support = p.mode == ResizeMode::kCubic ? 2 : 1;
  constexpr double kMostTaps = 1 << 20, kFar = 1e15;  // far: out of any image, but a number that int64 has
  if (!(2 * support / shrink < kMostTaps))
    c.unsupported(cat("a scale of ", a.scale, ", for which a value is made of more than ", kMostTaps, " others"));
  const auto start = static_cast<int64_t>(std::floor(-support / shrink)) + 1;
  ResizeTable table;
  table.taps = p.mode == ResizeMode::kNearest ? 1 : 2 - 2 * start;
  constexpr int64_t kLargest = 1 << 24;  // 16 bytes each, made at every new shape
  if (a.out > kLargest / table.taps)
    c.unsupported(cat("a dimension of ", a.out, " with ", counted(table.taps, "tap"), " each"));
  for (int64_t o = 0; o < a.out; ++o) {
    const double place = std::clamp(source_of(c, p, a, o), -kFar, kFar);
    const double left = std::ceil(place) - 1, ratio = place - left;
    const auto base = static_cast<int64_t>(left);
    const auto clamp = [&](int64_t i) { return std::clamp<int64_t>(i, 0, a.in - 1); };
    const bool outside = p.coordinates == "tf_crop_and_resize" && (place < 0 || place > static_cast<double>(a.in - 1));
    if (p.mode == ResizeMode::kNearest) {
      table.index.push_back(outside ? -1 : clamp(base + static_cast<int64_t>(nearest_weight(c, p, ratio))));
      table.weights.push_back(1);
      continue;
    }
    double sum = 0;
    const size_t first = table.weights.size();
    for (int64_t t = 0; t < table.taps; ++t) {
      const int64_t i = base + start + t;
      const double d = (static_cast<double>(start + t) - ratio) * shrink;
      double w = p.mode == ResizeMode::kCubic ? cubic(d, p.cubic_a) : std::max(0.0, 1 - std::abs(d));
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

}  // namespace inferkit
