// ConvTranspose. Float32 and float64: one product per image gives what every input pixel sends to every tap, and a
// second pass adds it up, taps in order and, where many reach a pixel, in chunks; the other types gather in double.
#include <algorithm>
#include <type_traits>
#include <utility>

#include "engine/compile/conv_transpose_shape.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/taps_of_chunk.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/binary/binary.h"
#include "kernels/cpu/gemm64/gemm64.h"
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

// ---- Float32 and float64 --------------------------------------------------------------------------------------------

struct GemmParams {
  TransposeShape shape;
  int slots;
  int64_t block, blocks;     // of filters
  int64_t parts;             // of the blocks, each with a packed image of its own
  int64_t rows, row_blocks;  // of the input, where windows do not overlap; row_blocks is 0 where they may
  int64_t chunk;             // of taps
  int64_t packed_elements, sent_elements, slot_elements;
};

/// to[i step] += from[i] for n elements.
template <class T>
void add_row(const T* from, T* to, int64_t n, int64_t step) {
  if constexpr (std::is_same_v<T, float>) {
    constexpr int64_t kMany = 128;  // of them the kernel is faster
    if (step == 1 && n >= kMany) {
      return kernels::binary_fn(kernels::Binary::kAdd, kernels::BinaryForm::kVectorVector)(to, from, to, n);
    }
  }
  if (step == 1) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[i];
    return;
  }
  for (; n >= 4; n -= 4, from += 4, to += 4 * step) {
    const T a = to[0] + from[0], b = to[step] + from[1], c = to[2 * step] + from[2], d = to[3 * step] + from[3];
    to[0] = a;
    to[step] = b;
    to[2 * step] = c;
    to[3 * step] = d;
  }
  for (; n > 0; --n, ++from, to += step) *to += *from;
}

/// to[2 i] += a[i] and to[2 i + 1] += b[i] for n elements.
template <class T>
void add_two(const T* __restrict a, const T* __restrict b, T* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    to[2 * i] += a[i];
    to[2 * i + 1] += b[i];
  }
}

/// The same, and to[2 i] += c[i - 1] after a[i].
template <class T>
void add_three(const T* __restrict a, const T* __restrict b, const T* __restrict c, T* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    to[2 * i] = to[2 * i] + a[i] + c[i - 1];
    to[2 * i + 1] += b[i];
  }
}

/// What `kTaps` taps that lie beside each other send to one row, at a stride of two; input 0 sends the first one to
/// to[start]. The inputs [begin, end) are those all of whose taps lie inside: the last of three is of the input before.
template <int kTaps, class T>
void add_beside(const Reach (&reach)[3], int64_t begin, int64_t end, const T* from, int64_t plane, T* to) {
  if constexpr (kTaps == 2) {
    add_two(from + begin, from + plane + begin, to + reach[0].start + 2 * begin, end - begin);
  } else {
    add_three(from + begin, from + plane + begin, from + 2 * plane + begin, to + reach[0].start + 2 * begin,
              end - begin);
  }
  // At the edges some lie outside.
  for (int t = 0; t < kTaps; ++t, from += plane) {
    const int64_t first = begin - (t == 2), last = end - (t == 2);
    for (int64_t i = reach[t].first; i < std::min(first, reach[t].last); ++i) to[reach[t].start + 2 * i] += from[i];
    for (int64_t i = std::max(last, reach[t].first); i < reach[t].last; ++i) to[reach[t].start + 2 * i] += from[i];
  }
}

/// y[plane] += what the taps [first, last) of every input pixel send, one tap after the other; at a stride of two, two
/// or three taps that lie beside each other at once: a pixel still gets them in order.
template <class T>
void add_taps(const Window& w, int64_t first, int64_t last, const T* sent, T* y) {
  const auto& [d0, d1, d2] = w.dim;
  const int64_t plane = w.in_elements();
  for (int64_t tap = first, taps = 0; tap < last; tap += taps) {
    const Reach r0 = reach_of(d0, tap / d2.kernel / d1.kernel), r1 = reach_of(d1, tap / d2.kernel % d1.kernel);
    const int64_t k = tap % d2.kernel, beside = std::min(last - tap, d2.kernel - k);
    const Reach reach[3] = {reach_of(d2, k), reach_of(d2, k + 1), reach_of(d2, k + 2)};
    taps = d2.stride != 2 || d2.dilation != 1 ? 1 : beside == 3 ? 3 : std::min<int64_t>(beside, 2);
    int64_t begin = std::max(reach[0].first, reach[1].first), end = std::min(reach[0].last, reach[1].last);
    if (taps == 3) {
      begin = std::max(begin, reach[2].first + 1);
      end = std::min(end, reach[2].last + 1);
    }
    end = std::max(begin, end);
    for (int64_t a = r0.first; a < r0.last; ++a) {
      for (int64_t b = r1.first; b < r1.last; ++b) {
        const T* from = sent + tap * plane + (a * d1.in + b) * d2.in;
        T* to = y + ((r0.start + a * d0.stride) * d1.out + r1.start + b * d1.stride) * d2.out;
        if (taps == 3) {
          add_beside<3>(reach, begin, end, from, plane, to);
        } else if (taps == 2) {
          add_beside<2>(reach, begin, end, from, plane, to);
        } else {
          const Reach& r = reach[0];
          add_row(from + r.first, to + r.start + r.first * d2.stride, r.last - r.first, d2.stride);
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
template <class T>
void place_rows(const T* __restrict a, const T* __restrict b, T bias, T* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    to[2 * i] = bias + a[i];
    to[2 * i + 1] = bias + b[i];
  }
}

/// Some filters and some rows of the input, whose outputs nobody else adds to. Taps lie `plane` elements
/// apart.
template <class T>
void place_taps(const Window& w, int64_t row, int64_t rows, const T* sent, int64_t plane, T bias, T* y) {
  const auto& [d0, d1, d2] = w.dim;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t a = (row + r) / d1.in, b = (row + r) % d1.in;
    for (int64_t line = 0; line < d0.kernel * d1.kernel; ++line) {  // of the window
      const int64_t o0 = a * d0.stride + line / d1.kernel, o1 = b * d1.stride + line % d1.kernel;
      T* to = y + (o0 * d1.out + o1) * d2.out;
      const T* from = sent + line * d2.kernel * plane + r * d2.in;
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

/// The product of an image and group, packed, with some of its filters.
template <class T>
kernels::GemmArgsOf<T> product_of(const GemmParams& p, const T* packed, int64_t pixels, T* sent) {
  kernels::GemmArgsOf<T> g;
  g.n = g.ldc = pixels;
  g.k = g.lda = p.shape.channels;
  g.c = sent;
  g.k_chunk = kernels::GemmOf<T>::chunk(kernels::sum_chunk(g.k));
  kernels::use_packed_b(g, packed);
  return g;
}

/// A block of rows of one image and group: packed once for all filters, which come in blocks.
template <class T>
void apart_task(const GemmParams& p, std::byte* const* io, int64_t task, T* scratch) {
  const TransposeShape& s = p.shape;
  const Window& w = s.window;
  const int64_t image = task / p.row_blocks, group = image % s.groups;  // image: and group
  const int64_t row = task % p.row_blocks * p.rows;
  const int64_t rows = std::min(p.rows, w.dim[0].in * w.dim[1].in - row), pixels = rows * w.dim[2].in;
  const int64_t taps = w.kernel_elements(), in = w.in_elements();
  const T *x = reinterpret_cast<const T*>(io[1]), *bias = reinterpret_cast<const T*>(io[3]);
  kernels::pack_b(x + image * s.channels * in + row * w.dim[2].in, in, s.channels, pixels, scratch);
  auto g = product_of(p, scratch, pixels, scratch + p.packed_elements);
  for (int64_t first = 0; first < s.filters; first += p.block) {
    const int64_t filters = std::min(p.block, s.filters - first);
    g.m = filters * taps;
    g.a = reinterpret_cast<const T*>(io[2]) + (group * s.filters + first) * taps * s.channels;
    kernels::GemmOf<T>::one(g);
    for (int64_t f = 0; f < filters; ++f) {
      place_taps(w, row, rows, g.c + f * taps * pixels, pixels, bias ? bias[group * s.filters + first + f] : T{0},
                 reinterpret_cast<T*>(io[0]) + (image * s.filters + first + f) * w.out_elements());
    }
  }
}

/// Some blocks of the filters of one image and group, which is packed once for them.
template <class T>
void gemm_task(const GemmParams& p, std::byte* const* io, int64_t task, T* scratch) {
  const TransposeShape& s = p.shape;
  const Window& w = s.window;
  const int64_t part = task % p.parts, image = task / p.parts, group = image % s.groups;  // image: and group
  const int64_t taps = w.kernel_elements(), in = w.in_elements(), out = w.out_elements();
  const T *x = reinterpret_cast<const T*>(io[1]), *bias = reinterpret_cast<const T*>(io[3]);
  kernels::pack_b(x + image * s.channels * in, in, s.channels, in, scratch);
  auto g = product_of(p, scratch, in, scratch + p.packed_elements);
  WorkMeter meter;
  for (int64_t block = p.blocks * part / p.parts; block < p.blocks * (part + 1) / p.parts; ++block) {
    const int64_t first = block * p.block, filters = std::min(p.block, s.filters - first);
    g.m = filters * taps;
    g.a = reinterpret_cast<const T*>(io[2]) + (group * s.filters + first) * taps * s.channels;
    if (!meter.go_on(g.m * in * (s.channels / 25 + 1))) return;
    kernels::GemmOf<T>::one(g);
    for (int64_t f = 0; f < filters; ++f) {
      T* y = reinterpret_cast<T*>(io[0]) + (image * s.filters + first + f) * out;
      std::fill(y, y + out, bias ? bias[group * s.filters + first + f] : T{0});
      const T* sent = g.c + f * taps * in;
      // The first chunk of taps goes on from the bias, the others from zero.
      add_taps(w, 0, p.chunk, sent, y);
      for (int64_t tap = p.chunk; tap < taps; tap += p.chunk) {
        T* sum = g.c + p.sent_elements;
        std::fill(sum, sum + out, T{0});
        add_taps(w, tap, std::min(taps, tap + p.chunk), sent, sum);
        add_row(sum, y, out, 1);
      }
    }
  }
}

/// io: y, x, weights as [group, filter, tap, channel], bias, scratch.
template <class T>
void run_gemm(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const GemmParams*>(params);
  auto* scratch = reinterpret_cast<T*>(io[4]);
  const bool apart = p.row_blocks > 0;
  const int64_t tasks = p.shape.batch * p.shape.groups * (apart ? p.row_blocks : p.parts);
  const auto run_task = apart ? apart_task<T> : gemm_task<T>;
  for_tasks(context, tasks, p.slots,
            [&](int64_t i, int64_t slot) { run_task(p, io, i, scratch + slot * p.slot_elements); });
}

/// From [channels of all groups, filters of one, taps] to [group, filter, tap, channel of the group].
template <class T>
void turn_weights(const TransposeShape& s, const T* from, T* to) {
  const int64_t columns = s.filters * s.window.kernel_elements();
  WorkMeter meter;
  for (int64_t g = 0; g < s.groups; ++g) {
    for (int64_t j = 0; j < columns && meter.go_on(2 * s.channels); ++j) {
      for (int64_t i = 0; i < s.channels; ++i) *to++ = from[(g * s.channels + i) * columns + j];
    }
  }
}

template <class T>
void run_turn(const void* params, std::byte* const* io, const ExecContext&) {
  turn_weights(*static_cast<const TransposeShape*>(params), reinterpret_cast<const T*>(io[1]),
               reinterpret_cast<T*>(io[0]));
}

template <class T>
Ref turned_weights(LowerContext& c, const TransposeShape& s) {
  const TensorFacts& w = c.input(1);
  if (!w.constant) {
    const Ref turned = c.scratch(static_cast<size_t>(w.shape.elements()) * sizeof(T));
    c.step(run_turn<T>, s, {turned, c.in(1)}, static_cast<double>(w.shape.elements()) * 2);
    return turned;
  }
  return c.packed({w.constant}, {cat("conv-transpose-", s.groups), w.dtype, w.shape.elements(), {}},
                  [&](void* to) { turn_weights(s, w.constant->as<T>(), static_cast<T*>(to)); });
}

template <class T>
void lower_gemm(LowerContext& c, const TransposeShape& s) {
  constexpr int64_t kSent = kSentBytes / sizeof(T);
  GemmParams p{};
  p.shape = s;
  const int64_t in = s.window.in_elements(), taps = s.window.kernel_elements();
  const double products = multiplied(s.batch, s.groups, s.filters, taps, s.channels, in);
  p.slots = products < kParallelProducts ? 1 : std::min(c.threads(), kMaxSlots);
  const int64_t each = std::max<int64_t>(1, taps * in);
  p.block = std::clamp<int64_t>(kSent / each, 1, s.filters);
  if (p.slots > 1 && s.batch * s.groups < p.slots) p.block = std::min(p.block, (s.filters + p.slots - 1) / p.slots);
  p.blocks = (s.filters + p.block - 1) / p.block;
  p.parts = std::min<int64_t>(p.blocks, p.slots);
  p.chunk = taps_of_chunk(s.window);
  int64_t pixels = in;
  if (is_apart(s.window)) {
    const int64_t width = s.window.dim[2].in, all = s.window.dim[0].in * s.window.dim[1].in;
    p.block = std::clamp<int64_t>(kSent / (taps * width), 1, s.filters);
    p.rows = std::clamp<int64_t>(kSent / (p.block * taps * width), 1, all);
    if (p.slots > 1 && s.batch * s.groups < p.slots) p.rows = std::min(p.rows, (all + p.slots - 1) / p.slots);
    p.row_blocks = (all + p.rows - 1) / p.rows;
    pixels = p.rows * width;
  }
  p.packed_elements = static_cast<int64_t>(kernels::GemmOf<T>::packed_elements(s.channels, pixels));
  p.sent_elements = p.block * taps * pixels;
  const int64_t part = p.chunk < taps ? s.window.out_elements() : 0;
  p.slot_elements = (p.packed_elements + p.sent_elements + part + 15) / 16 * 16;
  const Ref weights = turned_weights<T>(c, s);
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_elements * p.slots) * sizeof(T));
  c.step(run_gemm<T>, p, {c.out(0), c.in(0), weights, c.has_input(2) ? c.in(2) : Ref{}, scratch},
         products * (sizeof(T) / 100.0) + multiplied(s.batch, s.groups, s.filters, each));
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
  if (dtype == DType::kF32) return lower_gemm<float>(c, s);
  if (dtype == DType::kF64) return lower_gemm<double>(c, s);
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
