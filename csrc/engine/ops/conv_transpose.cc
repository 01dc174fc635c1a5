// ConvTranspose. Float32: one product per image gives what every input pixel sends to every tap, and a second pass adds
// it up, taps in order and, where many reach a pixel, in chunks; the other types gather in double.
#include <algorithm>
#include <utility>

#include "engine/compile/conv_transpose_shape.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/taps_of_chunk.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/gemm/gemm.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

constexpr int64_t kSentBytes = 512 << 10;  // of one task's product: it stays in L2 until it is added up
constexpr int64_t kParallelProducts = 1 << 20;
constexpr int kMaxSlots = 16;

void infer_conv_transpose(InferContext& c) {
  check_window_attributes(c);
  require_type(c, 0, kFloatTypes);
  require_same_type(c, 0, 1);
  if (c.has_input(2)) require_same_type(c, 0, 2);
  const TransposeShape s = transpose_shape(c);
  c.set_output(0, c.input(0).dtype, window_output(s.window, s.batch, s.groups * s.filters));
}

/// The inputs [first, last) whose tap `k` falls inside [0, d.out).
struct Reach {
  int64_t first, last, start;  // start: where input 0 sends tap k
};
Reach reach_of(const WindowDim& d, int64_t k) {
  const int64_t start = k * d.dilation - d.pad_begin;
  const int64_t first = start < 0 ? (-start + d.stride - 1) / d.stride : 0;
  const int64_t last = start < d.out ? std::min(d.in, (d.out - start + d.stride - 1) / d.stride) : 0;
  return {first, std::max(first, last), start};
}

// ---- Float32 --------------------------------------------------------------------------------------------------------

struct GemmParams {
  TransposeShape shape;
  int slots;
  int64_t block, blocks;     // of filters
  int64_t rows, row_blocks;  // of the input, where windows do not overlap; row_blocks is 0 where they may
  int64_t chunk;             // of taps
  int64_t packed_floats, sent_floats, slot_floats;
};

/// to[i step] += from[i] for n elements.
void add_row(const float* from, float* to, int64_t n, int64_t step, kernels::BinaryFn add) {
  constexpr int64_t kMany = 128;  // of them the kernel is faster
  if (step == 1 && n >= kMany) return add(to, from, to, n);
  if (step == 1) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[i];
    return;
  }
  for (; n >= 4; n -= 4, from += 4, to += 4 * step) {
    const float a = to[0] + from[0], b = to[step] + from[1], c = to[2 * step] + from[2], d = to[3 * step] + from[3];
    to[0] = a;
    to[step] = b;
    to[2 * step] = c;
    to[3 * step] = d;
  }
  for (; n > 0; --n, ++from, to += step) *to += *from;
}

/// to[2 i] += a[i] and to[2 i + 1] += b[i] for n elements.
void add_rows(const float* __restrict a, const float* __restrict b, float* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    to[2 * i] += a[i];
    to[2 * i + 1] += b[i];
  }
}

/// y[plane] += what the taps [first, last) of every input pixel send, one tap after the other; at a stride of two, two
/// taps that lie beside each other at once, which send to different pixels.
void add_taps(const Window& w, int64_t first, int64_t last, const float* sent, float* y, kernels::BinaryFn add) {
  const auto& [d0, d1, d2] = w.dim;
  for (int64_t tap = first, taps = 0; tap < last; tap += taps) {
    const Reach r0 = reach_of(d0, tap / d2.kernel / d1.kernel), r1 = reach_of(d1, tap / d2.kernel % d1.kernel);
    const Reach r2 = reach_of(d2, tap % d2.kernel);
    const float* of_tap = sent + tap * w.in_elements();
    const bool pair = d2.stride == 2 && d2.dilation == 1 && tap + 1 < last && tap % d2.kernel + 1 < d2.kernel;
    taps = pair ? 2 : 1;
    const Reach next = pair ? reach_of(d2, tap % d2.kernel + 1) : r2;
    const int64_t begin = std::max(r2.first, next.first), end = std::max(begin, std::min(r2.last, next.last));
    for (int64_t a = r0.first; a < r0.last; ++a) {
      for (int64_t b = r1.first; b < r1.last; ++b) {
        const float* from = of_tap + (a * d1.in + b) * d2.in;
        float* to = y + ((r0.start + a * d0.stride) * d1.out + r1.start + b * d1.stride) * d2.out;
        if (!pair) {
          add_row(from + r2.first, to + r2.start + r2.first * d2.stride, r2.last - r2.first, d2.stride, add);
          continue;
        }
        const float* second = from + w.in_elements();
        add_rows(from + begin, second + begin, to + r2.start + 2 * begin, end - begin);
        // At the edges only one of the two may lie inside.
        for (const auto& [reach, row] : {std::pair(r2, from), std::pair(next, second)}) {
          for (int64_t i = reach.first; i < std::min(begin, reach.last); ++i) to[reach.start + 2 * i] += row[i];
          for (int64_t i = std::max(end, reach.first); i < reach.last; ++i) to[reach.start + 2 * i] += row[i];
        }
      }
    }
  }
}

/// Does every output get what exactly one tap sends, as where an image is doubled by windows of 2 x 2?
bool is_apart(const Window& w) {
  return std::ranges::all_of(w.dim, [](const WindowDim& d) {
    return d.kernel == d.stride && d.dilation == 1 && d.pad_begin == 0 && d.out == d.in * d.stride;
  });
}

/// to[2 i] = bias + a[i] and to[2 i + 1] = bias + b[i] for n elements.
void place_rows(const float* __restrict a, const float* __restrict b, float bias, float* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    to[2 * i] = bias + a[i];
    to[2 * i + 1] = bias + b[i];
  }
}

/// Some filters and some rows of the input, whose outputs nobody else adds to. Taps lie `plane` floats apart.
void place_taps(const Window& w, int64_t row, int64_t rows, const float* sent, int64_t plane, float bias, float* y) {
  const auto& [d0, d1, d2] = w.dim;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t a = (row + r) / d1.in, b = (row + r) % d1.in;
    for (int64_t line = 0; line < d0.kernel * d1.kernel; ++line) {  // of the window
      const int64_t o0 = a * d0.stride + line / d1.kernel, o1 = b * d1.stride + line % d1.kernel;
      float* to = y + (o0 * d1.out + o1) * d2.out;
      const float* from = sent + line * d2.kernel * plane + r * d2.in;
      if (d2.kernel == 2) {
        place_rows(from, from + plane, bias, to, d2.in);
        continue;
      }
      for (int64_t k = 0; k < d2.kernel; ++k, from += plane) {
        for (int64_t i = 0; i < d2.in; ++i) to[i * d2.stride + k] = bias + from[i];
      }
    }
  }
}

/// A block of rows of one image and group: packed once for all filters, which come in blocks.
void apart_task(const GemmParams& p, std::byte* const* io, int64_t task, float* scratch) {
  const TransposeShape& s = p.shape;
  const Window& w = s.window;
  const int64_t image = task / p.row_blocks, group = image % s.groups;  // image: and group
  const int64_t row = task % p.row_blocks * p.rows;
  const int64_t rows = std::min(p.rows, w.dim[0].in * w.dim[1].in - row), pixels = rows * w.dim[2].in;
  const int64_t taps = w.kernel_elements(), in = w.in_elements();
  const float *x = reinterpret_cast<const float*>(io[1]), *bias = reinterpret_cast<const float*>(io[3]);
  kernels::pack_b(x + image * s.channels * in + row * w.dim[2].in, in, s.channels, pixels, scratch);
  kernels::GemmArgs g;
  g.n = g.ldc = pixels;
  g.k = g.lda = s.channels;
  g.c = scratch + p.packed_floats;
  g.k_chunk = kernels::sum_chunk(g.k);
  kernels::use_packed_b(g, scratch);
  for (int64_t first = 0; first < s.filters; first += p.block) {
    const int64_t filters = std::min(p.block, s.filters - first);
    g.m = filters * taps;
    g.a = reinterpret_cast<const float*>(io[2]) + (group * s.filters + first) * taps * s.channels;
    kernels::gemm_f32(g);
    for (int64_t f = 0; f < filters; ++f) {
      place_taps(w, row, rows, g.c + f * taps * pixels, pixels, bias ? bias[group * s.filters + first + f] : 0.0f,
                 reinterpret_cast<float*>(io[0]) + (image * s.filters + first + f) * w.out_elements());
    }
  }
}

void gemm_task(const GemmParams& p, std::byte* const* io, int64_t task, float* scratch) {
  const TransposeShape& s = p.shape;
  const Window& w = s.window;
  const int64_t block = task % p.blocks, image = task / p.blocks, group = image % s.groups;  // image: and group
  const int64_t first = block * p.block, filters = std::min(p.block, s.filters - first);
  const int64_t taps = w.kernel_elements(), in = w.in_elements(), out = w.out_elements();
  const auto add = kernels::binary_fn(kernels::Binary::kAdd, kernels::BinaryForm::kVectorVector);
  const float *x = reinterpret_cast<const float*>(io[1]), *bias = reinterpret_cast<const float*>(io[3]);
  kernels::pack_b(x + image * s.channels * in, in, s.channels, in, scratch);
  kernels::GemmArgs g;
  g.m = filters * taps;
  g.n = in;
  g.k = g.lda = s.channels;
  g.a = reinterpret_cast<const float*>(io[2]) + (group * s.filters + first) * taps * s.channels;
  g.c = scratch + p.packed_floats;
  g.ldc = in;
  g.k_chunk = kernels::sum_chunk(g.k);
  kernels::use_packed_b(g, scratch);
  kernels::gemm_f32(g);
  for (int64_t f = 0; f < filters; ++f) {
    float* y = reinterpret_cast<float*>(io[0]) + (image * s.filters + first + f) * out;
    std::fill(y, y + out, bias ? bias[group * s.filters + first + f] : 0.0f);
    const float* sent = g.c + f * taps * in;
    // The first chunk of taps goes on from the bias, the others from zero.
    add_taps(w, 0, p.chunk, sent, y, add);
    for (int64_t tap = p.chunk; tap < taps; tap += p.chunk) {
      float* part = g.c + p.sent_floats;
      std::fill(part, part + out, 0.0f);
      add_taps(w, tap, std::min(taps, tap + p.chunk), sent, part, add);
      add(y, part, y, out);
    }
  }
}

/// io: y, x, weights as [group, filter, tap, channel], bias, scratch.
void run_gemm(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const GemmParams*>(params);
  auto* scratch = reinterpret_cast<float*>(io[4]);
  const bool apart = p.row_blocks > 0;
  const int64_t tasks = p.shape.batch * p.shape.groups * (apart ? p.row_blocks : p.blocks);
  const auto run_task = apart ? apart_task : gemm_task;
  for_tasks(context, tasks, p.slots,
            [&](int64_t i, int64_t slot) { run_task(p, io, i, scratch + slot * p.slot_floats); });
}

/// From [channels of all groups, filters of one, taps] to [group, filter, tap, channel of the group].
void turn_weights(const TransposeShape& s, const float* from, float* to) {
  const int64_t columns = s.filters * s.window.kernel_elements();
  WorkMeter meter;
  for (int64_t g = 0; g < s.groups; ++g) {
    for (int64_t j = 0; j < columns && meter.go_on(2 * s.channels); ++j) {
      for (int64_t i = 0; i < s.channels; ++i) *to++ = from[(g * s.channels + i) * columns + j];
    }
  }
}

void run_turn(const void* params, std::byte* const* io, const ExecContext&) {
  turn_weights(*static_cast<const TransposeShape*>(params), reinterpret_cast<const float*>(io[1]),
               reinterpret_cast<float*>(io[0]));
}

Ref turned_weights(LowerContext& c, const TransposeShape& s) {
  const TensorFacts& w = c.input(1);
  if (!w.constant) {
    const Ref turned = c.scratch(static_cast<size_t>(w.shape.elements()) * sizeof(float));
    c.step(run_turn, s, {turned, c.in(1)}, static_cast<double>(w.shape.elements()) * 2);
    return turned;
  }
  return c.packed({w.constant}, {cat("conv-transpose-", s.groups), DType::kF32, w.shape.elements(), {}},
                  [&](void* to) { turn_weights(s, w.constant->as<float>(), static_cast<float*>(to)); });
}

void lower_gemm(LowerContext& c, const TransposeShape& s) {
  GemmParams p{};
  p.shape = s;
  const int64_t in = s.window.in_elements(), taps = s.window.kernel_elements();
  const int64_t products = s.batch * s.groups * s.filters * taps * s.channels * in;
  p.slots = products < kParallelProducts ? 1 : std::min(c.threads(), kMaxSlots);
  const int64_t each = std::max<int64_t>(1, taps * in);
  p.block = std::clamp<int64_t>(kSentBytes / 4 / each, 1, s.filters);
  if (p.slots > 1 && s.batch * s.groups < p.slots) p.block = std::min(p.block, (s.filters + p.slots - 1) / p.slots);
  p.blocks = (s.filters + p.block - 1) / p.block;
  p.chunk = taps_of_chunk(s.window);
  int64_t pixels = in;
  if (is_apart(s.window)) {
    const int64_t width = s.window.dim[2].in, all = s.window.dim[0].in * s.window.dim[1].in;
    p.block = std::clamp<int64_t>(kSentBytes / 4 / (taps * width), 1, s.filters);
    p.rows = std::clamp<int64_t>(kSentBytes / 4 / (p.block * taps * width), 1, all);
    if (p.slots > 1 && s.batch * s.groups < p.slots) p.rows = std::min(p.rows, (all + p.slots - 1) / p.slots);
    p.row_blocks = (all + p.rows - 1) / p.rows;
    pixels = p.rows * width;
  }
  p.packed_floats = static_cast<int64_t>(kernels::packed_b_elements(s.channels, pixels));
  p.sent_floats = p.block * taps * pixels;
  const int64_t part = p.chunk < taps ? s.window.out_elements() : 0;
  p.slot_floats = (p.packed_floats + p.sent_floats + part + 15) / 16 * 16;
  const Ref weights = turned_weights(c, s);
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  c.step(run_gemm, p, {c.out(0), c.in(0), weights, c.has_input(2) ? c.in(2) : Ref{}, scratch},
         static_cast<double>(products) / 25 + static_cast<double>(s.batch * s.groups * s.filters * each));
}

// ---- Any type -------------------------------------------------------------------------------------------------------

/// The input that reaches output `o` by tap `k`, or -1.
int64_t sender(const WindowDim& d, int64_t o, int64_t k) {
  const int64_t at = o + d.pad_begin - k * d.dilation;
  return at >= 0 && at % d.stride == 0 && at / d.stride < d.in ? at / d.stride : -1;
}

template <class T>
void run_generic(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& s = *static_cast<const TransposeShape*>(params);
  const WindowDim &d0 = s.window.dim[0], &d1 = s.window.dim[1], &d2 = s.window.dim[2];
  const int64_t in = s.window.in_elements(), taps = s.window.kernel_elements(), out = s.window.out_elements();
  T* y = reinterpret_cast<T*>(io[0]);
  const T *x = reinterpret_cast<const T*>(io[1]), *weights = reinterpret_cast<const T*>(io[2]);
  const T* bias = reinterpret_cast<const T*>(io[3]);
  WorkMeter meter;
  for (int64_t i = 0; i < s.batch * s.groups * s.filters * out; ++i) {
    const int64_t o = i % out, filter = i / out % s.filters, image = i / out / s.filters, group = image % s.groups;
    double sum = bias ? static_cast<double>(load(bias[group * s.filters + filter])) : 0;
    const bool went_on = for_blocks(meter, 0, taps, 5 + 2 * s.channels, [&](int64_t first, int64_t last) {
      for (int64_t k = first; k < last; ++k) {
        const int64_t a = sender(d0, o / d2.out / d1.out, k / d2.kernel / d1.kernel);
        const int64_t b = sender(d1, o / d2.out % d1.out, k / d2.kernel % d1.kernel);
        const int64_t e = sender(d2, o % d2.out, k % d2.kernel);
        if (a < 0 || b < 0 || e < 0) continue;
        for (int64_t ch = 0; ch < s.channels; ++ch) {
          const T v = x[(image * s.channels + ch) * in + (a * d1.in + b) * d2.in + e];
          const T w = weights[((group * s.channels + ch) * s.filters + filter) * taps + k];
          sum += static_cast<double>(load(v)) * static_cast<double>(load(w));
        }
      }
    });
    if (!went_on) return;
    y[i] = store<T>(static_cast<Compute<T>>(sum));
  }
}

void lower_conv_transpose(LowerContext& c) {
  const TransposeShape s = transpose_shape(c);
  const DType dtype = c.input(0).dtype;
  if (c.output(0).shape.elements() == 0) return;
  if (dtype == DType::kF32) return lower_gemm(c, s);
  const auto fn = dispatch<kFloatTypes>(dtype, []<class T>() -> StepFn { return run_generic<T>; });
  const auto work = c.output(0).shape.elements() * s.window.kernel_elements() * (5 + 2 * s.channels);
  c.step(fn, s, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}}, static_cast<double>(work));
}

}  // namespace

void register_conv_transpose(OpRegistry& r) {
  r.add({.name = "ConvTranspose",
         .min_inputs = 2,
         .max_inputs = 3,
         .max_outputs = 1,
         .infer = infer_conv_transpose,
         .mixed_axes = conv_axes<1>},
        lower_conv_transpose);
}

}  // namespace inferkit
