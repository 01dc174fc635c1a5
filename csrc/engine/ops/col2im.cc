// Col2Im, CenterCropPad and MaxUnpool: elements that go to places which shapes or indices name.
#include <algorithm>
#include <cstring>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/strided.h"
#include "engine/compile/window.h"
#include "engine/ops/common/any_width.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/common/taps_of_chunk.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/indices.h"

namespace inferkit {
namespace {

// ---- Col2Im: blocks [batch, channels * block, blocks], image_shape, block_shape -------------------------------------

// So that no product overflows.
constexpr int64_t kMaxSide = int64_t{1} << 24, kMaxCount = int64_t{1} << 28;

struct Col2ImParams {
  Window window;  // `in` is the image, `out` the number of blocks
  int64_t planes;
  int64_t chunk;  // of taps
};

Col2ImParams read_col2im(const NodeContext& c) {
  check_window_attributes(c);
  const Shape& x = c.input(0).shape;
  const std::vector<int64_t> image = c.const_ints(1), block = c.const_ints(2);
  const size_t n = image.size();
  if (x.rank() != 3 || n == 0 || block.size() != n) {
    c.fail(cat("blocks of shape ", x.str(), " for an image of ", n, " and blocks of ",
               counted(block.size(), "dimension")));
  }
  if (n > 3) c.unsupported(cat("an image of ", counted(n, "dimension")));
  const auto strides = window_attr(c, "strides", n, 1, 1), dilations = window_attr(c, "dilations", n, 1, 1);
  const auto pads = window_attr(c, "pads", 2 * n, 0, 0);
  Col2ImParams p{};
  p.window.rank = static_cast<int32_t>(n);
  int64_t taps = 1, blocks = 1;
  for (size_t i = 0; i < n; ++i) {
    WindowDim& d = p.window.dim[3 - n + i];
    if (image[i] < 1 || block[i] < 1 || std::max({image[i], pads[i], pads[n + i]}) > kMaxSide ||
        block[i] > image[i] + pads[i] + pads[n + i]) {
      c.fail(cat("blocks of ", block[i], " in an image of ", image[i]));
    }
    d = {image[i], 0, block[i], strides[i], dilations[i], pads[i], pads[n + i]};
    d.out = (d.in + d.pad_begin + d.pad_end - d.dilation * (d.kernel - 1) - 1) / d.stride + 1;
    taps *= d.kernel;
    blocks *= d.out;
    if (d.out < 1 || taps > kMaxCount || blocks > kMaxCount) c.fail("no block fits the image");
  }
  if (x[1] % taps != 0 || x[2] != blocks) {
    c.fail(cat("blocks of shape ", x.str(), "; expected ", counted(blocks, "block"), " of ", counted(taps, "element")));
  }
  p.planes = x[0] * (x[1] / taps);
  p.chunk = taps_of_chunk(p.window);
  return p;
}

/// The blocks [first, last) whose element k lies in the image, along one dimension.
struct BlockSpan {
  int64_t first, last;
};
BlockSpan blocks_inside(const WindowDim& d, int64_t k) {
  const int64_t start = k * d.dilation - d.pad_begin;  // of block 0
  const auto reaching = [&](int64_t place) { return place <= 0 ? 0 : (place - 1) / d.stride + 1; };
  const int64_t first = std::min(d.out, reaching(-start));
  return {first, std::clamp(reaching(d.in - start), first, d.out)};
}

/// y, of elements that are `stride` apart, plus x.
template <class T>
void add_spaced(const T* __restrict x, T* __restrict y, int64_t stride, int64_t n) {
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) y[i] += x[i];
  } else {
    for (int64_t i = 0; i < n; ++i) y[i * stride] += x[i];
  }
}

/// io: y, x, room for the sums of a chunk of taps over one plane where there are several.
template <class T>
void col2im_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const Col2ImParams*>(params);
  const auto& d = p.window.dim;
  const int64_t pixels = p.window.in_elements();
  const auto* x = reinterpret_cast<const T*>(io[1]);
  T* const part = reinterpret_cast<T*>(io[2]);
  WorkMeter meter;
  for (int64_t plane = 0; plane < p.planes; ++plane) {
    T *const y = reinterpret_cast<T*>(io[0]) + plane * pixels, *to = y;
    const auto add_part = [&] {
      in_blocks(pixels, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) y[i] += part[i];
      });
    };
    fill_in_blocks(y, pixels, T(0));
    for (int64_t tap = 0; tap < p.window.kernel_elements(); ++tap) {
      if (tap > 0 && tap % p.chunk == 0) {
        if (to == part) add_part();
        fill_in_blocks(part, pixels, T(0));
        to = part;
      }
      const int64_t k[3] = {tap / (d[1].kernel * d[2].kernel), tap / d[2].kernel % d[1].kernel, tap % d[2].kernel};
      const BlockSpan in[3] = {blocks_inside(d[0], k[0]), blocks_inside(d[1], k[1]), blocks_inside(d[2], k[2])};
      const auto place = [&](size_t i, int64_t o) { return o * d[i].stride - d[i].pad_begin + k[i] * d[i].dilation; };
      const int64_t count = in[2].last - in[2].first, tall = in[1].last - in[1].first;
      const int64_t rows = (in[0].last - in[0].first) * tall;
      const bool went_on = for_blocks(meter, 0, count > 0 ? rows : 0, 4 + count, [&](int64_t first, int64_t last) {
        int64_t a = in[0].first + first / tall, b = in[1].first + first % tall;
        for (int64_t row = first; row < last; ++row, ++b) {
          if (b == in[1].last) {
            b = in[1].first;
            ++a;
          }
          const T* from = x + (a * d[1].out + b) * d[2].out + in[2].first;
          const int64_t line = place(0, a) * d[1].in + place(1, b);
          add_spaced(from, to + line * d[2].in + place(2, in[2].first), d[2].stride, count);
        }
      });
      x += p.window.out_elements();
      if (!went_on || !meter.go_on(20)) return;
    }
    if (to == part) add_part();
  }
}

void infer_col2im(InferContext& c) {
  require_type(c, 0, kFloatTypes);
  const Col2ImParams p = read_col2im(c);
  const Shape& x = c.input(0).shape;
  Shape out{x[0], x[1] / p.window.kernel_elements()};
  for (size_t i = 3 - static_cast<size_t>(p.window.rank); i < 3; ++i) out.push_back(p.window.dim[i].in);
  if (!out.checked_elements()) c.fail(cat("an image of shape ", out.str()));
  c.set_output(0, c.input(0).dtype, out);
}

/// As measured: of rows, and of what they hold.
double col2im_nanos(const Col2ImParams& p, int64_t count, DType work) {
  const WindowDim& last = p.window.dim[2];
  const double each = 0.04 * static_cast<double>(dtype_size(work)) + (last.stride == 1 ? 0 : 0.35);
  return static_cast<double>(count) * (each + 3 / static_cast<double>(std::max<int64_t>(1, last.out)));
}

void lower_col2im(LowerContext& c) {
  const DType type = c.input(0).dtype, work = compute_type(type);
  const int64_t count = c.input(0).shape.elements();
  const Col2ImParams p = read_col2im(c);
  const bool chunks = p.chunk < p.window.kernel_elements();
  const Ref y = begin_output(c, 0, work);
  const Ref part = chunks ? c.scratch(static_cast<size_t>(p.window.in_elements()) * dtype_size(work)) : Ref{};
  c.step(work == DType::kF64 ? col2im_step<double> : col2im_step<float>, p,
         {y, converted(c, c.in(0), type, work, count), part}, col2im_nanos(p, count, work));
  end_output(c, 0, y, work);
}

// ---- CenterCropPad: the middle of x, or x in the middle of zeros ----------------------------------------------------

struct CropPadParams {
  LoopNest<2> nest;  // y, x
  int64_t y_offset, x_offset, y_elements;
};

Shape crop_shape(const NodeContext& c) {
  Shape out = c.input(0).shape;
  const std::vector<int64_t> shape = c.const_ints(1);
  std::vector<int64_t> axes = c.attr_ints("axes");
  if (!c.has_attr("axes")) {
    for (size_t i = 0; i < out.rank(); ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (axes.size() != shape.size())
    c.fail(cat(counted(shape.size(), "size"), " for ", counted(axes.size(), "axis", "axes")));
  for (size_t i = 0; i < axes.size(); ++i) {
    if (shape[i] < 0) c.fail(cat("a size of ", shape[i]));
    out[static_cast<size_t>(c.resolve_axis(axes[i], static_cast<int64_t>(out.rank())))] = shape[i];
  }
  if (!out.checked_elements()) c.fail(cat("a result of shape ", out.str()));
  return out;
}

template <class T>
void crop_pad_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const CropPadParams*>(params);
  auto* y = reinterpret_cast<T*>(io[0]);
  const auto* x = reinterpret_cast<const T*>(io[1]) + p.x_offset;
  fill_in_blocks(y, p.y_elements, T(0));
  for_each_piece(p.nest, [&](const std::array<int64_t, 2>& at, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      y[p.y_offset + at[0] + i * p.nest.inner_stride(0)] = x[at[1] + i * p.nest.inner_stride(1)];
    }
  });
}

void infer_crop_pad(InferContext& c) { c.set_output(0, c.input(0).dtype, crop_shape(c)); }

void lower_crop_pad(LowerContext& c) {
  const Shape &x = c.input(0).shape, &y = c.output(0).shape;
  Shape common = x;
  CropPadParams p{{}, 0, 0, y.elements()};
  const auto xs = x.strides(), ys = y.strides();
  for (size_t i = 0; i < x.rank(); ++i) {
    common[i] = std::min(x[i], y[i]);
    p.y_offset += (y[i] - common[i]) / 2 * ys[i];
    p.x_offset += (x[i] - common[i]) / 2 * xs[i];
  }
  p.nest = make_nest<2>(common, {ys, xs});
  const StepFn fn = dispatch_any_width(c.input(0).dtype, []<class W>() -> StepFn { return crop_pad_step<W>; });
  c.step(fn, p, {c.out(0), c.in(0)}, static_cast<double>(p.y_elements));
}

// ---- MaxUnpool: every element of x goes to the place that its index names, zeros elsewhere --------------------------

struct UnpoolParams {
  int64_t count, places, y_elements;
  Strides dims, strides;  // of the indices' shape, and into y
  int32_t rank;           // 0 where that is the shape of y
};

struct UnpoolShapes {
  Shape inferred, out;
};

UnpoolShapes unpool_shapes(const NodeContext& c) {
  const Shape& x = c.input(0).shape;
  if (x.rank() < 3 || c.input(1).shape != x) c.fail(cat("values ", x.str(), ", indices ", c.input(1).shape.str()));
  const size_t n = x.rank() - 2;
  const auto kernel = window_attr(c, "kernel_shape", n, 0, 1), strides = window_attr(c, "strides", n, 1, 1);
  const auto pads = window_attr(c, "pads", 2 * n, 0, 0);
  UnpoolShapes s{x, x};
  for (size_t i = 0; i < n; ++i) {
    if (x[i + 2] > (int64_t{1} << 31)) c.unsupported(cat("values of shape ", x.str()));
    s.inferred[i + 2] = (x[i + 2] - 1) * strides[i] - pads[i] - pads[n + i] + kernel[i];
    if (s.inferred[i + 2] < 0) c.fail("the padding is larger than the result");
  }
  s.out = s.inferred;
  if (c.has_input(2)) {
    const std::vector<int64_t> given = c.const_ints(2);
    if (given.size() != x.rank()) c.fail(cat("an output_shape of ", counted(given.size(), "number")));
    s.out = Shape(given);
    for (size_t i = 0; i < x.rank(); ++i) {
      if (given[i] < s.inferred[i]) c.fail(cat("an output_shape below ", s.inferred.str()));
    }
  }
  if (!s.out.checked_elements() || !s.inferred.checked_elements()) c.fail(cat("a result of shape ", s.out.str()));
  return s;
}

int64_t unpool_nanos(int32_t rank) { return rank == 0 ? 1 : 10; }

template <class T>
void unpool_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const UnpoolParams*>(params);
  auto* y = reinterpret_cast<T*>(io[0]);
  const auto* x = reinterpret_cast<const T*>(io[1]);
  const auto* indices = reinterpret_cast<const int64_t*>(io[2]);
  fill_in_blocks(y, p.y_elements, T(0));
  WorkMeter meter;
  for_blocks(meter, 0, p.count, unpool_nanos(p.rank), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      int64_t place = indices[i];
      if (place < 0 || place >= p.places) throw_index(place, p.places);
      int64_t at = p.rank == 0 ? place : 0;
      for (int32_t d = p.rank - 1; d >= 0; --d) {
        const auto dim = static_cast<size_t>(d);
        at += place % p.dims[dim] * p.strides[dim];
        place /= p.dims[dim];
      }
      y[at] = x[i];
    }
  });
}

void infer_unpool(InferContext& c) {
  require_type(c, 0, kAllTypes);
  if (c.input(1).dtype != DType::kI64) c.wrong("indices must be int64");
  if (!c.has_attr("kernel_shape")) c.fail("there is no kernel_shape");
  c.set_output(0, c.input(0).dtype, unpool_shapes(c).out);
}

void lower_unpool(LowerContext& c) {
  const UnpoolShapes s = unpool_shapes(c);
  UnpoolParams p{};
  p.count = c.input(0).shape.elements();
  p.places = s.inferred.elements();
  p.y_elements = s.out.elements();
  p.strides = s.out.strides();
  p.rank = s.out == s.inferred ? 0 : static_cast<int32_t>(s.out.rank());
  for (size_t i = 0; i < s.inferred.rank(); ++i) p.dims[i] = s.inferred[i];
  const StepFn fn = dispatch_width(c.input(0).dtype, []<class W>() -> StepFn { return unpool_step<W>; });
  c.step(fn, p, {c.out(0), c.in(0), c.in(1)},
         static_cast<double>(p.y_elements) * 0.1 + static_cast<double>(unpool_nanos(p.rank) * p.count));
}

/// Places count from the first row of the run; those that come with a request count from its own.
bool takes_places_as_given(const Node& node, const Graph& graph) {
  return std::ranges::none_of(graph.nodes, [&](const Node& pool) {
    return pool.op_type == "MaxPool" && pool.outputs.size() > 1 && pool.outputs[1] == node.inputs[1];
  });
}

void add(OpRegistry& r, std::string_view name, int since, int min_inputs, int max_inputs, InferFn infer, LowerFn lower,
         decltype(OpSchema::mixed_axes) mixed) {
  r.add({.name = name,
         .since = since,
         .min_inputs = min_inputs,
         .max_inputs = max_inputs,
         .max_outputs = 1,
         .infer = infer,
         .mixed_axes = mixed},
        lower);
}

}  // namespace

void register_col2im(OpRegistry& r) {
  add(r, "Col2Im", 18, 3, 3, infer_col2im, lower_col2im, behind_first_axis);
  add(r, "CenterCropPad", 18, 2, 2, infer_crop_pad, lower_crop_pad, mixed_where_sizes_change);
  r.add({.name = "MaxUnpool",
         .since = 9,
         .min_inputs = 2,
         .max_inputs = 3,
         .max_outputs = 1,
         .infer = infer_unpool,
         .rows_mix = takes_places_as_given},
        lower_unpool);
}

}  // namespace inferkit
