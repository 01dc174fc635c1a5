// Conv in float32 by GEMM with pixels as rows: A is the windows, one row a pixel, whatever image it is of; B is the
// filters, packed once per model; the rows of C are turned into the planes of the output.
#include <cstring>

#include "engine/ops/common/conv.h"
#include "engine/ops/common/packed_panels.h"
#include "engine/ops/common/transpose_tile.h"
#include "kernels/cpu/gemm/gemm.h"

namespace inferkit {
namespace {

using kernels::kPanelColumns;

constexpr int64_t kMinFilters = 8;          // fewer leave too many lanes of a panel idle
constexpr int64_t kBlockBytes = 384 << 10;  // of rows of A and C
constexpr int64_t kMinRows = 60;            // whole tiles of every tier
// What moving an element costs, as measured: in and out by tiles of planes, or along lines of a window.
constexpr int64_t kCostOfPlanes = 2, kCostOfLongLines = 1, kCostOfLines = 6, kLongLine = 16;

enum class Rows : uint8_t { kInPlace, kPlanes, kWindows };  // where A comes from

struct RowsParams {
  kernels::GemmArgs gemm;
  kernels::ConvDim dim[3];
  Rows source;
  bool direct;  // one pixel an image: the rows of C are those of the output
  int slots;
  int64_t batch, groups, channels, filters, in_area, out_area;
  int64_t block, blocks;  // of rows
  int64_t parts;          // of the panels of filters, where threads outnumber the blocks
  int64_t a_floats, slot_floats;
};

int64_t panels_of(int64_t columns) { return (columns + kPanelColumns - 1) / kPanelColumns; }

/// The taps of one line of a window, from x[first] on at a dilation; zeros outside [0, in).
float* copy_line(const kernels::ConvDim& d, const float* line, int64_t first, float* to) {
  const int64_t reach = (d.kernel - 1) * d.dilation;
  if (first >= 0 && first + reach < d.in) {
    if (d.dilation == 1 && d.kernel >= 8) {
      std::memcpy(to, line + first, static_cast<size_t>(d.kernel) * sizeof(float));
    } else {
      for (int64_t i = 0; i < d.kernel; ++i) to[i] = line[first + i * d.dilation];
    }
  } else {
    for (int64_t i = 0; i < d.kernel; ++i) {
      const int64_t at = first + i * d.dilation;
      to[i] = at >= 0 && at < d.in ? line[at] : 0.0f;
    }
  }
  return to + d.kernel;
}

/// The window of one output pixel: the channels' taps, in the order of the weights.
void copy_window(const RowsParams& p, const float* x, int64_t pixel, float* to) {
  const auto& [d0, d1, d2] = p.dim;
  const int64_t z0 = pixel / d2.out / d1.out * d0.stride - d0.pad_begin;
  const int64_t y0 = pixel / d2.out % d1.out * d1.stride - d1.pad_begin;
  const int64_t x0 = pixel % d2.out * d2.stride - d2.pad_begin;
  for (int64_t c = 0; c < p.channels; ++c, x += p.in_area) {
    for (int64_t i = 0; i < d0.kernel; ++i) {
      const int64_t z = z0 + i * d0.dilation;
      for (int64_t j = 0; j < d1.kernel; ++j) {
        const int64_t y = y0 + j * d1.dilation;
        if (z >= 0 && z < d0.in && y >= 0 && y < d1.in) {
          to = copy_line(d2, x + (z * d1.in + y) * d2.in, x0, to);
        } else {
          to = std::fill_n(to, d2.kernel, 0.0f);
        }
      }
    }
  }
}

/// Calls f(image, first pixel, count, rows before) for the images that rows [first, first + count) belong to.
template <class F>
void for_images(const RowsParams& p, int64_t first, int64_t count, F&& f) {
  for (int64_t done = 0; done < count;) {
    const int64_t image = (first + done) / p.out_area, pixel = (first + done) % p.out_area;
    const int64_t some = std::min(p.out_area - pixel, count - done);
    f(image, pixel, some, done);
    done += some;
  }
}

void rows_task(const RowsParams& p, std::byte* const* io, int64_t task, int64_t parts, float* scratch) {
  const int64_t part = task % parts, group = task / parts % p.groups, first = task / parts / p.groups * p.block;
  const int64_t count = std::min(p.block, p.batch * p.out_area - first), k = p.gemm.k, panels = panels_of(p.filters);
  const int64_t column = panels * part / parts * kPanelColumns;
  const int64_t columns = std::min(p.filters, panels * (part + 1) / parts * kPanelColumns) - column;
  const float* x = reinterpret_cast<const float*>(io[1]) + group * p.channels * p.in_area;
  const int64_t image_step = p.groups * p.channels * p.in_area, filter = group * p.filters + column;
  float* y = reinterpret_cast<float*>(io[0]);
  kernels::GemmArgs g = p.gemm;
  kernels::use_packed_b(g, reinterpret_cast<const float*>(io[2]) + (group * panels * kPanelColumns + column) * k);
  g.m = count;
  g.n = columns;
  if (io[3]) {
    g.bias = reinterpret_cast<const float*>(io[3]) + filter;
    g.bias_kind = kernels::BiasKind::kPerColumn;
  }
  if (p.source == Rows::kInPlace) {
    g.a = x + first * image_step;
    g.lda = image_step;
  } else {
    g.a = scratch;
    g.lda = k;
    for_images(p, first, count, [&](int64_t image, int64_t pixel, int64_t some, int64_t row) {
      const float* from = x + image * image_step;
      if (p.source == Rows::kPlanes) return transpose(from + pixel, p.in_area, scratch + row * k, k, some, k);
      for (int64_t i = 0; i < some; ++i) copy_window(p, from, pixel + i, scratch + (row + i) * k);
    });
  }
  g.c = p.direct ? y + first * p.groups * p.filters + filter : scratch + p.a_floats;
  g.ldc = p.direct ? p.groups * p.filters : columns;
  kernels::gemm_f32(g);
  if (p.direct) return;
  for_images(p, first, count, [&](int64_t image, int64_t pixel, int64_t some, int64_t row) {
    transpose(g.c + row * columns, columns, y + (image * p.groups * p.filters + filter) * p.out_area + pixel,
              p.out_area, columns, some);
  });
}

/// io: y, x, packed weights, bias, scratch.
void run_rows(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const RowsParams*>(params);
  const int64_t parts = !context.pool || context.max_threads < 2 ? 1 : p.parts;
  for_tasks(context, p.blocks * p.groups * parts, p.slots, [&](int64_t task, int64_t slot) {
    rows_task(p, io, task, parts, reinterpret_cast<float*>(io[4]) + slot * p.slot_floats);
  });
}

/// Does the one window of an image cover it, no more and no less?
bool whole_image(const Window& w) {
  bool all = !w.has_padding();
  for (const WindowDim& d : w.dim) all = all && d.in == d.kernel && d.dilation == 1;
  return all;
}

Ref packed_filters(LowerContext& c, const ConvShape& s) {
  return packed_panels(c, c.known_value(1), {s.window_elements(), s.filters, /*transposed=*/true, s.groups});
}

}  // namespace

Cost conv_rows_cost(const NodeContext& c) {
  const ConvShape s = conv_shape(c);
  if (!c.input(1).constant) return Cost::cannot("the weights are not constant");
  if (s.filters < kMinFilters) return Cost::cannot("a group has less than 8 filters");
  const int64_t pixels = s.window.out_elements(), k = s.window_elements();
  const int64_t line = std::max(s.window.dim[2].kernel, s.window.dim[1].kernel);
  const int64_t in = whole_image(s.window) ? 0
                     : s.pointwise()       ? kCostOfPlanes
                     : line < kLongLine    ? kCostOfLines
                                           : kCostOfLongLines;
  const int64_t out = pixels == 1 ? 0 : kCostOfPlanes;
  return conv_cost(
      s, static_cast<double>(pixels) *
             (static_cast<double>(panels_of(s.filters) + in) * static_cast<double>(k) + multiplied(out, s.filters)));
}

void lower_conv_rows(LowerContext& c) {
  const ConvShape s = conv_shape(c);
  const Window& w = s.window;
  const FusedActivation act = fused_activation(c);
  RowsParams p{};
  p.gemm.k = s.window_elements();
  p.gemm.act = act.op;
  p.gemm.act_alpha = act.alpha;
  p.gemm.act_beta = act.beta;
  p.gemm.k_chunk = kernels::sum_chunk(p.gemm.k);
  for (size_t d = 0; d < 3; ++d) p.dim[d] = conv_dim(w.dim[d]);
  move_in(p.dim);
  p.batch = s.batch;
  p.groups = s.groups;
  p.channels = s.channels;
  p.filters = s.filters;
  p.in_area = w.in_elements();
  p.out_area = w.out_elements();
  p.source = whole_image(w) ? Rows::kInPlace : s.pointwise() ? Rows::kPlanes : Rows::kWindows;
  p.direct = p.out_area == 1;

  const int64_t rows = p.batch * p.out_area, products = rows * p.groups * p.filters * p.gemm.k;
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  const int64_t row_floats = (p.source == Rows::kInPlace ? 0 : p.gemm.k) + (p.direct ? 0 : p.filters);
  const int64_t fit = kBlockBytes / static_cast<int64_t>(sizeof(float)) / std::max<int64_t>(1, row_floats);
  p.block = std::min(rows, row_floats == 0 ? rows : std::max(kMinRows, fit / kMinRows * kMinRows));
  if (p.slots > 1) {  // two tasks a thread, where blocks stay worth the reading of the filters
    const int64_t want = std::max<int64_t>(1, 2 * p.slots / p.groups);
    p.block = std::min(p.block, std::max(kMinRows, (rows + want - 1) / want));
  }
  p.blocks = (rows + p.block - 1) / p.block;
  p.parts = std::clamp<int64_t>(p.slots / (p.blocks * p.groups), 1, std::max<int64_t>(1, panels_of(p.filters) / 2));
  p.a_floats = p.source == Rows::kInPlace ? 0 : (p.block * p.gemm.k + 15) / 16 * 16;
  p.slot_floats = p.a_floats + (p.direct ? 0 : (p.block * p.filters + 15) / 16 * 16);
  const Ref weights = packed_filters(c, s);
  const Ref scratch = p.slot_floats ? c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float)) : Ref{};
  c.step(run_rows, p, {c.out(0), c.in(0), weights, c.has_input(2) ? c.in(2) : Ref{}, scratch},
         products / 30 + multiplied(rows, p.groups, row_floats) / 2);
}

}  // namespace inferkit
