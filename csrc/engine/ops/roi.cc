// RoiAlign and MaxRoiPool: pooling over boxes of an image.
#include <cmath>
#include <limits>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/indices.h"
#include "kernels/summation.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr double kMaxSamples = 4096;  // of one bin along one dimension

struct RoiParams {
  int64_t rois, channels, height, width, out_height, out_width;
  int64_t images;
  int64_t sampling_ratio;
  float scale, shift;
  bool force_size, max;
};

/// Where a sample lies and how its four neighbours weigh; all weights 0 outside of the image.
template <class W>
struct Sample {
  int64_t at[4] = {0, 0, 0, 0};
  W weight[4] = {0, 0, 0, 0};
};

template <class W>
Sample<W> sample_at(const RoiParams& p, W y, W x) {
  Sample<W> s;
  if (!(y >= -1 && y <= static_cast<W>(p.height) && x >= -1 && x <= static_cast<W>(p.width))) return s;
  y = std::max(y, W(0));
  x = std::max(x, W(0));
  const auto split = [](W& v, int64_t size, int64_t& low, int64_t& high) {
    low = static_cast<int64_t>(v);
    high = low + 1;
    if (low >= size - 1) {
      low = high = size - 1;
      v = static_cast<W>(low);
    }
  };
  int64_t y0, y1, x0, x1;
  split(y, p.height, y0, y1);
  split(x, p.width, x0, x1);
  const W ly = y - static_cast<W>(y0), lx = x - static_cast<W>(x0), hy = 1 - ly, hx = 1 - lx;
  const int64_t at[4] = {y0 * p.width + x0, y0 * p.width + x1, y1 * p.width + x0, y1 * p.width + x1};
  const W weight[4] = {hy * hx, hy * lx, ly * hx, ly * lx};
  std::copy(at, at + 4, s.at);
  std::copy(weight, weight + 4, s.weight);
  return s;
}

int64_t sample_count(const RoiParams& p, double size, int64_t bins) {
  if (p.sampling_ratio > 0) return p.sampling_ratio;
  const double count = std::ceil(size / static_cast<double>(bins));
  if (!(count <= kMaxSamples))
    throw Error(ErrorCode::kInference, cat("a box of size ", size, " is too large; expected at most ", kMaxSamples,
                                           " samples along each side of a bin"));
  return static_cast<int64_t>(std::max(count, 0.0));
}

/// io: y, x, rois, batch indices, room for two values per channel.
template <class W>
void roi_align_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const RoiParams*>(params);
  const int64_t area = p.height * p.width;
  auto *y = reinterpret_cast<W*>(io[0]), *total = reinterpret_cast<W*>(io[4]), *part = total + p.channels;
  WorkMeter meter;
  for (int64_t n = 0; n < p.rois; ++n) {
    const W* box = reinterpret_cast<const W*>(io[2]) + n * 4;
    const int64_t image = reinterpret_cast<const int64_t*>(io[3])[n];
    if (image < 0 || image >= p.images) throw_index(image, p.images);
    const W scale = static_cast<W>(p.scale), shift = static_cast<W>(p.shift);
    const W left = box[0] * scale - shift, top = box[1] * scale - shift;
    W width = box[2] * scale - shift - left, height = box[3] * scale - shift - top;
    if (p.force_size) {
      width = std::max(width, W(1));
      height = std::max(height, W(1));
    }
    const W bin_height = height / static_cast<W>(p.out_height), bin_width = width / static_cast<W>(p.out_width);
    const int64_t rows = sample_count(p, height, p.out_height), cols = sample_count(p, width, p.out_width);
    const W count = static_cast<W>(std::max<int64_t>(rows * cols, 1));
    const W* x = reinterpret_cast<const W*>(io[1]) + image * p.channels * area;
    for (int64_t ph = 0; ph < p.out_height; ++ph) {
      for (int64_t pw = 0; pw < p.out_width; ++pw) {
        W* out = y + (n * p.channels * p.out_height + ph) * p.out_width + pw;
        const int64_t step = p.out_height * p.out_width;
        // The samples of a bin, in chunks (kernels/summation.h): how many there are follows from the box alone.
        const int64_t samples = rows * cols,
                      chunk = p.max ? std::max<int64_t>(samples, 1) : kernels::sum_chunk(samples);
        std::fill_n(total, p.channels, W(0));
        for (int64_t begin = 0; begin < samples; begin += chunk) {
          W* const to = begin == 0 ? total : part;
          if (to == part) std::fill_n(part, p.channels, W(0));
          for (int64_t i = begin; i < std::min(samples, begin + chunk); ++i) {
            if (!meter.go_on(10 + 4 * p.channels)) return;
            const auto iy = static_cast<W>(i / cols), ix = static_cast<W>(i % cols);
            const Sample<W> s = sample_at<W>(
                p, top + static_cast<W>(ph) * bin_height + (iy + W(0.5)) * bin_height / static_cast<W>(rows),
                left + static_cast<W>(pw) * bin_width + (ix + W(0.5)) * bin_width / static_cast<W>(cols));
            for (int64_t c = 0; c < p.channels; ++c) {
              W parts[4];
              for (int j = 0; j < 4; ++j) parts[j] = s.weight[j] * x[c * area + s.at[j]];
              if (p.max) {
                const W most = std::max(std::max(parts[0], parts[1]), std::max(parts[2], parts[3]));
                to[c] = i == 0 ? most : std::max(to[c], most);
              } else {
                to[c] += parts[0] + parts[1] + parts[2] + parts[3];
              }
            }
          }
          for (int64_t c = 0; to == part && c < p.channels; ++c) total[c] += part[c];
        }
        for (int64_t c = 0; c < p.channels; ++c) out[c * step] = p.max ? total[c] : total[c] / count;
      }
    }
  }
}

RoiParams image_params(const NodeContext& c, int64_t box_size) {
  const Shape &x = c.input(0).shape, &rois = c.input(1).shape;
  if (x.rank() != 4 || rois.rank() != 2 || rois[1] != box_size) {
    c.fail(cat("an image of shape ", x.str(), " and boxes of shape ", rois.str()));
  }
  if (x[2] < 1 || x[3] < 1) c.fail("the image is empty");
  RoiParams p{};
  p.rois = rois[0];
  p.images = x[0];
  p.channels = x[1];
  p.height = x[2];
  p.width = x[3];
  p.scale = c.attr_float("spatial_scale", 1);
  return p;
}

void read_align_attributes(const NodeContext& c, RoiParams& p) {
  p.out_height = c.attr_int("output_height", 1);
  p.out_width = c.attr_int("output_width", 1);
  p.sampling_ratio = c.attr_int("sampling_ratio", 0);
  if (p.out_height < 1 || p.out_width < 1 || p.sampling_ratio < 0 || p.sampling_ratio > 1024) {
    c.fail(cat("an output of ", p.out_height, " x ", p.out_width, " and a sampling_ratio of ", p.sampling_ratio));
  }
  const std::string mode = c.attr_string("mode", "avg");
  if (mode != "avg" && mode != "max") c.unsupported(cat("mode '", mode, "'"));
  p.max = mode == "max";
  const std::string pixels =
      c.version() < 16 ? "output_half_pixel" : c.attr_string("coordinate_transformation_mode", "half_pixel");
  if (pixels != "half_pixel" && pixels != "output_half_pixel") {
    c.unsupported(cat("coordinate_transformation_mode '", pixels, "'"));
  }
  p.force_size = pixels != "half_pixel";
  p.shift = p.force_size ? 0.0f : 0.5f;
}

RoiParams read_align(const NodeContext& c) {
  RoiParams p = image_params(c, 4);
  if (c.input(2).shape != Shape{p.rois} || c.input(2).dtype != DType::kI64) {
    c.fail(cat("batch_indices must be int64 of shape (", p.rois, ",)"));
  }
  read_align_attributes(c, p);
  return p;
}

void infer_align(InferContext& c) {
  RoiParams unused{};
  read_align_attributes(c, unused);
  require_type(c, 0, kFloatTypes);
  require_same_type(c, 0, 1);
  const RoiParams p = read_align(c);
  c.set_output(0, c.input(0).dtype, {p.rois, p.channels, p.out_height, p.out_width});
}

/// Both operators: float or double, of boxes and image in one type.
void lower_roi(LowerContext& c, const RoiParams& p, StepFn f32, StepFn f64, Ref indices) {
  const DType type = c.input(0).dtype, work = compute_type(type);
  const auto as_work = [&](size_t i, Ref in) { return converted(c, in, type, work, c.input(i).shape.elements()); };
  const Ref y = begin_output(c, 0, work), room = c.scratch(2 * static_cast<size_t>(p.channels) * dtype_size(work));
  c.step(work == DType::kF64 ? f64 : f32, p, {y, as_work(0, c.in(0)), as_work(1, c.steady(1)), indices, room},
         static_cast<double>(c.output(0).shape.elements()) * 20);
  end_output(c, 0, y, work);
}

void lower_align(LowerContext& c) {
  lower_roi(c, read_align(c), roi_align_step<float>, roi_align_step<double>, c.in(2));
}

// ---- MaxRoiPool: boxes [rois, 5] of batch index and corners, which are rounded to pixels
// -----------------------------

template <class W>
void max_roi_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const RoiParams*>(params);
  auto* y = reinterpret_cast<W*>(io[0]);
  const int64_t area = p.height * p.width;
  WorkMeter meter;
  for (int64_t n = 0; n < p.rois; ++n) {
    const W* box = reinterpret_cast<const W*>(io[2]) + n * 5;
    int64_t corner[5];
    for (int i = 0; i < 5; ++i) {
      const W v = i == 0 ? box[0] : std::round(box[i] * static_cast<W>(p.scale));
      if (!(std::fabs(v) < W(1e9))) throw Error(ErrorCode::kInference, "a box lies far out of the image");
      corner[i] = static_cast<int64_t>(v);
    }
    if (corner[0] < 0 || corner[0] >= p.images) throw_index(corner[0], p.images);
    const int64_t height = std::max<int64_t>(corner[4] - corner[2] + 1, 1);
    const int64_t width = std::max<int64_t>(corner[3] - corner[1] + 1, 1);
    const W bin_height = static_cast<W>(height) / static_cast<W>(p.out_height);
    const W bin_width = static_cast<W>(width) / static_cast<W>(p.out_width);
    const auto bound = [](W at, int64_t start, int64_t size) {
      return std::clamp<int64_t>(static_cast<int64_t>(at) + start, 0, size);
    };
    for (int64_t c = 0; c < p.channels; ++c) {
      const W* x = reinterpret_cast<const W*>(io[1]) + (corner[0] * p.channels + c) * area;
      for (int64_t ph = 0; ph < p.out_height; ++ph) {
        const int64_t y0 = bound(std::floor(static_cast<W>(ph) * bin_height), corner[2], p.height);
        const int64_t y1 = bound(std::ceil(static_cast<W>(ph + 1) * bin_height), corner[2], p.height);
        for (int64_t pw = 0; pw < p.out_width; ++pw) {
          const int64_t x0 = bound(std::floor(static_cast<W>(pw) * bin_width), corner[1], p.width);
          const int64_t x1 = bound(std::ceil(static_cast<W>(pw + 1) * bin_width), corner[1], p.width);
          if (!meter.go_on(10 + (y1 - y0) * (x1 - x0))) return;
          W most = y0 < y1 && x0 < x1 ? std::numeric_limits<W>::lowest() : W(0);
          for (int64_t i = y0; i < y1; ++i) {
            for (int64_t j = x0; j < x1; ++j) most = std::max(most, x[i * p.width + j]);
          }
          *y++ = most;
        }
      }
    }
  }
}

RoiParams read_max(const NodeContext& c) {
  const std::vector<int64_t> shape = c.attr_ints("pooled_shape");
  if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1) c.fail("pooled_shape must be two positive numbers");
  RoiParams p = image_params(c, 5);
  p.out_height = shape[0];
  p.out_width = shape[1];
  return p;
}

void infer_max(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  require_same_type(c, 0, 1);
  const RoiParams p = read_max(c);
  c.set_output(0, c.input(0).dtype, {p.rois, p.channels, p.out_height, p.out_width});
}
void lower_max(LowerContext& c) { lower_roi(c, read_max(c), max_roi_step<float>, max_roi_step<double>, Ref{}); }

}  // namespace

void register_roi(OpRegistry& r) {
  // A region says which image it is of.
  const auto mixed = [](const NodeContext&, size_t i) { return i == 0 ? kAllAxes : Axes{0}; };
  r.add({.name = "RoiAlign",
         .since = 10,
         .min_inputs = 3,
         .max_inputs = 3,
         .max_outputs = 1,
         .infer = infer_align,
         .mixed_axes = mixed},
        lower_align);
  r.add({.name = "MaxRoiPool",
         .min_inputs = 2,
         .max_inputs = 2,
         .max_outputs = 1,
         .infer = infer_max,
         .mixed_axes = mixed},
        lower_max);
}

}  // namespace inferkit
