// GridSample and AffineGrid: reading an image of one to three dimensions at points between its pixels.
#include <array>
#include <cmath>

#include "base/counted.h"
#include "engine/compile/expand.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr size_t kMaxSpatial = 3;

// ---- GridSample -----------------------------------------------------------------------------------------------------

enum class Sampling : uint8_t { kNearest, kLinear, kCubic };
enum class Border : uint8_t { kZeros, kEdge, kReflection };

/// The last `rank` of three dimensions are the image's; the others have size 1.
struct GridSampleParams {
  int64_t batch, channels, points, pixels;
  std::array<int64_t, kMaxSpatial> dims;
  int32_t rank;
  Sampling sampling;
  Border border;
  bool align_corners;
};

/// The pixels that one coordinate reads along a dimension; an index of -1 reads 0.
template <class W>
struct Taps {
  int count = 1;
  std::array<int64_t, 4> index{};
  std::array<W, 4> weight{1};
};

template <class W>
W reflect(W x, W low, W high) {
  const W range = high - low;
  if (x >= low && x <= high) return x;
  if (!(range > 0) || !std::isfinite(x)) return low;
  const W distance = x < low ? low - x : x - high;
  const W rest = std::fmod(distance, range);
  const bool even = std::fmod(std::floor(distance / range), W(2)) == 0;
  return (x < low) == even ? low + rest : high - rest;
}

template <class W>
int64_t pixel(const GridSampleParams& p, int64_t i, int64_t size, W low, W high) {
  if (i >= 0 && i < size) return i;
  if (p.border == Border::kZeros) return -1;
  if (p.border == Border::kEdge) return i < 0 ? 0 : size - 1;
  return std::clamp<int64_t>(static_cast<int64_t>(reflect(static_cast<W>(i), low, high)), 0, size - 1);
}

template <class W>
std::array<W, 4> cubic_weights(W x) {
  constexpr W a = W(-0.75);
  const W y = 1 - x;
  return {((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a, ((a + 2) * x - (a + 3)) * x * x + 1,
          ((a + 2) * y - (a + 3)) * y * y + 1, ((a * (y + 1) - 5 * a) * (y + 1) + 8 * a) * (y + 1) - 4 * a};
}

/// What lies in the image, in pixels.
template <class W>
struct Extent {
  W low, high;
  Extent(const GridSampleParams& p, int64_t size)
      : low(p.align_corners ? W(0) : W(-0.5)), high(static_cast<W>(size) - (p.align_corners ? W(1) : W(0.5))) {}
};

constexpr double kFar = 1e9;  // beyond any image, and what an int64 holds

template <class W>
W coordinate_at(const GridSampleParams& p, W normalized, int64_t size) {
  const W length = static_cast<W>(size);
  const auto [low, high] = Extent<W>(p, size);
  W x = p.align_corners ? (normalized + 1) / 2 * (length - 1) : ((normalized + 1) * length - 1) / 2;
  if (p.sampling == Sampling::kNearest) x = std::nearbyint(x);
  if (!(x >= low && x <= high)) {
    // Cubic reads beyond the edge: its pixels are moved to it one by one, as PyTorch and ONNX Runtime do.
    const W beyond = p.sampling == Sampling::kCubic ? W(4) : W(0);
    if (p.border == Border::kEdge) x = x > -beyond ? std::min(x, length - 1 + beyond) : -beyond;
    if (p.border == Border::kReflection) x = reflect(x, low, high);
  }
  return x;
}

template <class W>
Taps<W> taps_at(const GridSampleParams& p, W x, int64_t size) {
  const auto [low, high] = Extent<W>(p, size);
  Taps<W> t;
  if (!(std::fabs(x) < W(kFar))) {
    t.index[0] = -1;
    return t;
  }
  const W floor = std::floor(x);
  const auto first = static_cast<int64_t>(floor);
  switch (p.sampling) {
    case Sampling::kNearest:
      t.index[0] = pixel(p, static_cast<int64_t>(x), size, low, high);
      break;
    case Sampling::kLinear:
      t.count = 2;
      t.weight = {1 - (x - floor), x - floor};
      for (int64_t i = 0; i < 2; ++i) t.index[static_cast<size_t>(i)] = pixel(p, first + i, size, low, high);
      break;
    case Sampling::kCubic:
      t.count = 4;
      t.weight = cubic_weights(x - floor);
      for (int64_t i = 0; i < 4; ++i) t.index[static_cast<size_t>(i)] = pixel(p, first - 1 + i, size, low, high);
      break;
  }
  return t;
}

/// The pixels that one point reads, for all channels alike.
template <class W>
struct Stencil {
  int count = 0;
  std::array<int64_t, 64> offset;
  std::array<W, 64> weight;

  Stencil(const GridSampleParams& p, const std::array<Taps<W>, kMaxSpatial>& taps) {
    const auto below = [&](size_t dim) { return static_cast<size_t>(taps[dim].count); };
    for (size_t i = 0; i < below(0); ++i) {
      for (size_t j = 0; j < below(1); ++j) {
        for (size_t k = 0; k < below(2); ++k) {
          if (taps[0].index[i] < 0 || taps[1].index[j] < 0 || taps[2].index[k] < 0) continue;
          const auto at = static_cast<size_t>(count++);
          offset[at] = (taps[0].index[i] * p.dims[1] + taps[1].index[j]) * p.dims[2] + taps[2].index[k];
          weight[at] = taps[0].weight[i] * taps[1].weight[j] * taps[2].weight[k];
        }
      }
    }
  }
};

/// One point of all channels: y is `points` apart, x `pixels`.
template <class T, class Pixels>
void sample(const GridSampleParams& p, const Pixels& stencil, size_t count, const T* x, T* y) {
  for (int64_t c = 0; c < p.channels; ++c, x += p.pixels, y += p.points) {
    T sum = 0;
    for (size_t i = 0; i < count; ++i) sum += stencil.weight[i] * x[stencil.offset[i]];
    *y = sum;
  }
}

/// Of the four pixels around a point of a plane, where all are there.
template <class T>
struct Quad {
  std::array<int64_t, 4> offset;
  std::array<T, 4> weight;
  bool whole = false;

  Quad(const GridSampleParams& p, T row, T column) {
    const T above = std::floor(row), left = std::floor(column);
    if (!(above >= 0 && above < T(kFar) && left >= 0 && left < T(kFar))) return;
    const auto i = static_cast<int64_t>(above), j = static_cast<int64_t>(left);
    if (i + 1 >= p.dims[1] || j + 1 >= p.dims[2]) return;
    const T down = row - above, right = column - left;
    const int64_t first = i * p.dims[2] + j;
    offset = {first, first + 1, first + p.dims[2], first + p.dims[2] + 1};
    weight = {(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right};
    whole = true;
  }
};

/// io: y [batch, channels, points], x [batch, channels, pixels], grid [batch, points, rank].
template <class T>
void grid_sample_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const GridSampleParams*>(params);
  for_ranges(context, p.batch * p.points, (1 << 13) / std::max<int64_t>(1, p.channels), [&](int64_t from, int64_t to) {
    const bool plane = p.rank == 2 && p.sampling == Sampling::kLinear;
    int64_t b = from / p.points, point = from % p.points;
    for (int64_t at = from; at < to; ++at, ++point) {
      if (point == p.points) {
        point = 0;
        ++b;
      }
      const T* grid = reinterpret_cast<const T*>(io[2]) + at * p.rank;
      const T* x = reinterpret_cast<const T*>(io[1]) + b * p.channels * p.pixels;
      T* y = reinterpret_cast<T*>(io[0]) + b * p.channels * p.points + point;
      std::array<T, kMaxSpatial> place{};
      for (int32_t d = 0; d < p.rank; ++d) {  // the grid names the last dimension first
        const size_t dim = kMaxSpatial - 1 - static_cast<size_t>(d);
        place[dim] = coordinate_at<T>(p, grid[d], p.dims[dim]);
      }
      if (plane) {
        const Quad<T> quad(p, place[1], place[2]);
        if (quad.whole) {
          sample(p, quad, 4, x, y);
          continue;
        }
      }
      std::array<Taps<T>, kMaxSpatial> taps;
      for (size_t dim = kMaxSpatial - static_cast<size_t>(p.rank); dim < kMaxSpatial; ++dim) {
        taps[dim] = taps_at<T>(p, place[dim], p.dims[dim]);
      }
      const Stencil<T> stencil(p, taps);
      sample(p, stencil, static_cast<size_t>(stencil.count), x, y);
    }
  });
}

GridSampleParams read_params(const NodeContext& c) {
  GridSampleParams p{};
  const std::string mode = c.attr_string("mode", c.version() >= 20 ? "linear" : "bilinear");
  if (mode == "nearest") {
    p.sampling = Sampling::kNearest;
  } else if (mode == "linear" || mode == "bilinear") {
    p.sampling = Sampling::kLinear;
  } else if (mode == "cubic" || mode == "bicubic") {
    p.sampling = Sampling::kCubic;
  } else {
    c.unsupported(cat("mode '", mode, "'"));
  }
  const std::string border = c.attr_string("padding_mode", "zeros");
  if (border != "zeros" && border != "border" && border != "reflection") {
    c.unsupported(cat("padding_mode '", border, "'"));
  }
  p.border = border == "zeros" ? Border::kZeros : border == "border" ? Border::kEdge : Border::kReflection;
  const Shape &x = c.input(0).shape, &grid = c.input(1).shape;
  if (x.rank() < 3 || grid.rank() != x.rank() || grid[0] != x[0]) {
    c.fail(cat("an image of shape ", x.str(), " and a grid of shape ", grid.str()));
  }
  if (x.rank() - 2 > kMaxSpatial) c.unsupported(cat("an image of ", counted(x.rank() - 2, "dimension")));
  p.rank = static_cast<int32_t>(x.rank() - 2);
  if (grid.back() != p.rank)
    c.fail(cat("points of ", counted(grid.back(), "coordinate"), " in ", counted(p.rank, "dimension")));
  p.batch = x[0];
  p.channels = x[1];
  p.points = grid.elements(1, grid.rank() - 1);
  p.pixels = x.elements(2, x.rank());
  p.dims.fill(1);
  for (size_t i = 2; i < x.rank(); ++i) p.dims[kMaxSpatial - x.rank() + i] = x[i];
  p.align_corners = c.attr_int("align_corners", 0) != 0;
  return p;
}

void infer_grid_sample(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  require_type(c, 1, kFloatTypes);
  read_params(c);
  Shape y(c.input(1).shape.dims().first(c.input(1).shape.rank() - 1));
  y.insert(1, c.input(0).shape[1]);
  c.set_output(0, c.input(0).dtype, y);  // checks the size
  if (y.elements() > 0 && c.input(0).shape.elements() == 0) c.fail("the image is empty");
}

/// As measured: of a point, and of each of its channels.
double sample_nanos(const GridSampleParams& p) {
  const bool plane = p.rank == 2 && p.sampling == Sampling::kLinear, nearest = p.sampling == Sampling::kNearest;
  return multiplied(p.batch, p.points, (plane ? 10 : nearest ? 20 : 30) + (plane || nearest ? 3 : 8) * p.channels);
}

void lower_grid_sample(LowerContext& c) {
  const GridSampleParams p = read_params(c);
  const bool wide = c.input(0).dtype == DType::kF64 || c.input(1).dtype == DType::kF64;
  const DType work = wide ? DType::kF64 : DType::kF32;
  const auto as_work = [&](size_t i, Ref in) {
    return converted(c, in, c.input(i).dtype, work, c.input(i).shape.elements());
  };
  const Ref y = begin_output(c, 0, work);
  c.step(wide ? grid_sample_step<double> : grid_sample_step<float>, p,
         {y, as_work(0, c.in(0)), as_work(1, c.steady(1))}, sample_nanos(p));
  end_output(c, 0, y, work);
}

/// torch's exporter writes ONNX Runtime's own operator for opsets before 16.
void expand_microsoft(Expansion& e) {
  e.give(0, e.add("GridSample", 16, {e.in(0), e.in(1)}, e.keep({"align_corners", "mode", "padding_mode"})));
}

// ---- AffineGrid: theta [batch, d, d + 1] and the size (batch, channels, spatial...) of the image -------------------

struct AffineGridParams {
  int64_t batch;
  int32_t rank;
  std::array<int64_t, kMaxSpatial> dims;
  bool align_corners;
};

template <class T>
void affine_grid_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const AffineGridParams*>(params);
  auto* out = reinterpret_cast<T*>(io[0]);
  const auto coordinate = [&](size_t dim, int64_t i) -> T {
    const T n = static_cast<T>(p.dims[dim]), at = static_cast<T>(i);
    if (!p.align_corners) return (2 * at + 1) / n - 1;
    return p.dims[dim] > 1 ? 2 * at / (n - 1) - 1 : T(0);
  };
  WorkMeter meter;
  for (int64_t b = 0; b < p.batch; ++b) {
    const T* theta = reinterpret_cast<const T*>(io[1]) + b * p.rank * (p.rank + 1);
    for (int64_t i = 0; i < p.dims[0]; ++i) {
      for (int64_t j = 0; j < p.dims[1] && meter.go_on(10 * p.dims[2]); ++j) {
        for (int64_t k = 0; k < p.dims[2]; ++k) {
          const std::array<T, kMaxSpatial> at{coordinate(2, k), coordinate(1, j), coordinate(0, i)};
          for (int32_t r = 0; r < p.rank; ++r) {
            const T* row = theta + r * (p.rank + 1);
            T sum = row[p.rank];
            for (int32_t d = 0; d < p.rank; ++d) sum += row[d] * at[static_cast<size_t>(d)];
            *out++ = sum;
          }
        }
      }
    }
  }
}

AffineGridParams read_affine(const NodeContext& c) {
  const std::vector<int64_t> size = c.const_ints(1);
  if (size.size() != 4 && size.size() != 5) c.fail(cat("a size of ", counted(size.size(), "number")));
  AffineGridParams p{size[0], static_cast<int32_t>(size.size() - 2), {1, 1, 1}, c.attr_int("align_corners", 0) != 0};
  const Shape& theta = c.input(0).shape;
  if (theta != Shape{p.batch, p.rank, p.rank + 1}) c.fail(cat("theta has shape ", theta.str()));
  for (size_t i = 2; i < size.size(); ++i) {
    if (size[i] < 0) c.fail("a negative size");
    p.dims[kMaxSpatial - size.size() + i] = size[i];
    if (p.align_corners && size[i] == 1) c.fail("align_corners in a dimension of one point");
  }
  return p;
}

void infer_affine_grid(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  const AffineGridParams p = read_affine(c);
  Shape out{p.batch};
  for (size_t d = kMaxSpatial - static_cast<size_t>(p.rank); d < kMaxSpatial; ++d) out.push_back(p.dims[d]);
  out.push_back(p.rank);
  if (!out.checked_elements()) c.fail(cat("a grid of shape ", out.str()));
  c.set_output(0, c.input(0).dtype, out);
}

void lower_affine_grid(LowerContext& c) {
  const AffineGridParams p = read_affine(c);
  const DType type = c.input(0).dtype, work = compute_type(type);
  const Ref out = begin_output(c, 0, work);
  const Ref theta = converted(c, c.in(0), type, work, c.input(0).shape.elements());
  c.step(work == DType::kF64 ? affine_grid_step<double> : affine_grid_step<float>, p, {out, theta},
         static_cast<double>(c.output(0).shape.elements()) * 4);
  end_output(c, 0, out, work);
}

}  // namespace

void register_grid_sample(OpRegistry& r) {
  r.add({.name = "GridSample",
         .since = 16,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer_grid_sample,
         .mixed_axes = behind_first_axis},
        lower_grid_sample);
  add_expanded(r, {.domain = kMicrosoft, .name = "GridSample", .min_inputs = 2, .max_inputs = 2, .max_outputs = 1},
               expand_microsoft);
  r.add({.name = "AffineGrid",
         .since = 20,
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer_affine_grid},
        lower_affine_grid);
}

}  // namespace inferkit
