// MaxPool, AveragePool, LpPool and their global forms. NaN in a window gives NaN.
#include "kernels/cpu/pool/pool.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "engine/compile/layouts.h"
#include "engine/compile/op_registry.h"
#include "engine/compile/window.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "engine/ops/reduce.h"
#include "graph/topological_sort.h"
#include "kernels/cpu/binary/binary.h"
#include "kernels/summation.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

constexpr TypeSet kMaxTypes = kFloatTypes | types(DType::kI8, DType::kU8);
constexpr int64_t kParallelElements = 1 << 17;
constexpr int kMaxSlots = 16;

/// The exponent of LpPool and GlobalLpPool.
int64_t norm_of(const NodeContext& c) {
  const int64_t p = c.attr_int("p", 2);
  if (p < 1) c.fail(cat("p is ", p, ", expected at least 1"));
  return p;
}

void infer_pool(InferContext& c) {
  check_window_attributes(c);
  if (c.attr_ints("kernel_shape").empty()) c.fail("kernel_shape is missing");
  if (c.node().op_type == "LpPool") norm_of(c);
  const TensorFacts& x = c.input(0);
  const Shape out = window_output(pool_window(c), x.shape[0], x.shape[1]);
  c.set_output(0, x.dtype, out);
  if (c.has_output(1)) c.set_output(1, DType::kI64, out);
}

Axes mixed_by_pool(const NodeContext& c, size_t) {
  return window_axes(c, c.input(0).shape, c.attr_ints("kernel_shape"));
}

// ---- Any type -------------------------------------------------------------------------------------------------------

enum class PoolOp : uint8_t { kMax, kAverage, kLp };

struct PoolParams {
  Window window;
  int64_t planes;
  bool include_pad;   // kAverage
  bool column_major;  // the order of MaxPool's indices
  double p;           // kLp
};

/// Calls f(y index within the plane, taps of the three dimensions) for every output of a plane.
template <class F>
void for_each_window(const Window& w, F&& f) {
  int64_t o = 0;
  for (int64_t a = 0; a < w.dim[0].out; ++a) {
    for (int64_t b = 0; b < w.dim[1].out; ++b) {
      for (int64_t c = 0; c < w.dim[2].out; ++c) f(o++, std::array<int64_t, 3>{a, b, c});
    }
  }
}

constexpr int64_t kWindows = 64;  // between two looks whether to go on

/// Calls f(x index within the plane) for every element that the window at `at` covers.
template <class F>
void for_each_tap(const Window& w, const std::array<int64_t, 3>& at, F&& f) {
  const auto t0 = w.dim[0].taps(at[0]), t1 = w.dim[1].taps(at[1]), t2 = w.dim[2].taps(at[2]);
  for (int64_t i = t0.first; i < t0.last; ++i) {
    const int64_t a = t0.start + i * w.dim[0].dilation;
    for (int64_t j = t1.first; j < t1.last; ++j) {
      const int64_t b = a * w.dim[1].in + t1.start + j * w.dim[1].dilation;
      const int64_t row = b * w.dim[2].in + t2.start;
      for (int64_t k = t2.first; k < t2.last; ++k) f(row + k * w.dim[2].dilation);
    }
  }
}

/// io: x, y, indices (null where nobody wants them).
template <class T>
void run_max(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const PoolParams*>(params);
  const Window& w = p.window;
  const int64_t in = w.in_elements(), out = w.out_elements();
  WorkMeter meter;
  bool on = true;
  for (int64_t plane = 0; plane < p.planes; ++plane) {
    const T* x = reinterpret_cast<const T*>(io[0]) + plane * in;
    T* y = reinterpret_cast<T*>(io[1]) + plane * out;
    int64_t* index = io[2] ? reinterpret_cast<int64_t*>(io[2]) + plane * out : nullptr;
    for_each_window(w, [&](int64_t o, const std::array<int64_t, 3>& at) {
      if (o % kWindows == 0) on = meter.go_on(kWindows * 2 * w.kernel_elements());
      if (!on) return;
      using Limits = std::numeric_limits<Compute<T>>;
      auto best = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
      int64_t where = -1;
      for_each_tap(w, at, [&](int64_t i) {
        const auto v = load(x[i]);
        if (where >= 0 && !(v > best) && !(v != v && best == best)) return;
        best = v;
        where = i;
      });
      // As the kernels for planes: zeros of both signs are +0, whichever comes first, and a subnormal is zero.
      if constexpr (Limits::has_infinity) best += 0;
      y[o] = store<T>(best);
      if (!index) return;
      if (p.column_major && where >= 0) {
        const int64_t d2 = where % w.dim[2].in, d1 = where / w.dim[2].in % w.dim[1].in;
        const int64_t d0 = where / w.dim[2].in / w.dim[1].in;
        where = d0 + w.dim[0].in * (d1 + w.dim[1].in * d2);
      }
      index[o] = where < 0 ? -1 : plane * in + where;
    });
  }
}

constexpr int64_t kByteRow = 1024;  // of the largest values down the columns under a row of windows

/// Whether run_max_rows can: in one row of windows or a part of it they lie close to each other, and are not long.
bool pools_bytes_by_rows(const Window& w) {
  return w.dim[2].dilation == 1 && w.dim[2].kernel <= kByteRow / 4 && w.dim[2].stride <= kByteRow / 4;
}

/// The larger of two in each place.
template <class T>
void larger_of_bytes(const T* __restrict x, T* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = std::max(x[i], y[i]);
}

/// The same with elements of x that are `stride` apart.
template <class T>
void larger_of_spaced_bytes(const T* __restrict x, int64_t stride, T* __restrict y, int64_t n) {
  if (stride == 2) {
    for (int64_t i = 0; i < n; ++i) y[i] = std::max(x[2 * i], y[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = std::max(x[i * stride], y[i]);
  }
}

/// Of a row of windows, as measured.
double byte_row_nanos(const Window& w) {
  const auto rows = multiplied(std::min(w.dim[0].kernel, w.dim[0].in), std::min(w.dim[1].kernel, w.dim[1].in));
  const double across = multiplied(w.dim[2].out, w.dim[2].kernel) * (w.dim[2].stride <= 2 ? 0.04 : 0.25);
  return 15 + rows * (3 + 0.02 * static_cast<double>(w.dim[2].in)) + across;
}

/// Of bytes, without indices: down the columns first, then across them. io: x, y.
template <class T>
void run_max_rows(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const PoolParams*>(params);
  const Window& w = p.window;
  const WindowDim &d0 = w.dim[0], &d1 = w.dim[1], &d2 = w.dim[2];
  const int64_t most = (kByteRow - d2.kernel) / d2.stride + 1;  // windows of a row at once
  const T* x = reinterpret_cast<const T*>(io[0]);
  T* y = reinterpret_cast<T*>(io[1]);
  constexpr T kLowest = std::numeric_limits<T>::lowest();
  T line[kByteRow];
  WorkMeter meter;
  const auto row_of = [&](int64_t row) {
    const int64_t plane = row / (d0.out * d1.out), a = row / d1.out % d0.out, b = row % d1.out;
    const auto t0 = d0.taps(a), t1 = d1.taps(b);
    const T* from = x + plane * w.in_elements();
    for (int64_t first = 0; first < d2.out; first += most) {
      const int64_t n = std::min(most, d2.out - first);
      // The columns under these windows, and those of them that are no padding.
      const int64_t begin = first * d2.stride - d2.pad_begin, length = (n - 1) * d2.stride + d2.kernel;
      const int64_t left = std::clamp<int64_t>(-begin, 0, length);
      const int64_t right = std::clamp<int64_t>(d2.in - begin, left, length);
      bool none = true;
      for (int64_t i = t0.first; i < t0.last && left < right; ++i) {
        for (int64_t j = t1.first; j < t1.last; ++j) {
          const int64_t slice = t0.start + i * d0.dilation, line_of = t1.start + j * d1.dilation;
          const T* const columns = from + (slice * d1.in + line_of) * d2.in + begin + left;
          if (none) {
            std::copy_n(columns, right - left, line + left);
          } else {
            larger_of_bytes(columns, line + left, right - left);
          }
          none = false;
        }
      }
      std::fill(line, line + left, kLowest);
      std::fill(line + (none ? left : right), line + length, kLowest);
      T* const to = y + row * d2.out + first;
      std::fill(to, to + n, kLowest);
      for (int64_t k = 0; k < d2.kernel; ++k) {
        if (d2.stride == 1) {
          larger_of_bytes(line + k, to, n);
        } else {
          larger_of_spaced_bytes(line + k, d2.stride, to, n);
        }
      }
    }
  };
  const int64_t rows = p.planes * d0.out * d1.out;
  for_blocks(meter, 0, rows, static_cast<int64_t>(byte_row_nanos(w)), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) row_of(row);
  });
}

/// The sum of a window in the type of its elements, in the order of the kernels for planes: down each column of the
/// last dimension, in each row slice by slice where there are three, then across them; padding adds zero. Of windows
/// that are one chunk both ways.
float sum_of_taps(const Window& w, const std::array<int64_t, 3>& at, const float* x) {
  const auto t0 = w.dim[0].taps(at[0]), t1 = w.dim[1].taps(at[1]), t2 = w.dim[2].taps(at[2]);
  float total = 0;
  bool empty = t2.first == 0;
  for (int64_t k = t2.first; k < t2.last; ++k) {
    float column = 0;
    bool none = true;
    for (int64_t j = t1.first; j < t1.last; ++j) {
      for (int64_t i = t0.first; i < t0.last; ++i) {
        const int64_t a = t0.start + i * w.dim[0].dilation, b = t1.start + j * w.dim[1].dilation;
        const float v = x[(a * w.dim[1].in + b) * w.dim[2].in + t2.start + k * w.dim[2].dilation];
        column = none ? v : column + v;
        none = false;
      }
    }
    total = empty ? column : total + column;
    empty = false;
  }
  return t2.last < w.dim[2].kernel ? total + 0.0f : total;
}

/// The same of any window: each column in chunks of its taps that are there, then across in chunks of all taps.
float sum_of_many_taps(const Window& w, const std::array<int64_t, 3>& at, const float* x) {
  const auto t0 = w.dim[0].taps(at[0]), t1 = w.dim[1].taps(at[1]), t2 = w.dim[2].taps(at[2]);
  const int64_t down = kernels::sum_chunk(w.dim[0].kernel * w.dim[1].kernel);
  const int64_t across = kernels::sum_chunk(w.dim[2].kernel);
  const auto column = [&](int64_t k) {
    float total = 0, part = 0;
    int64_t count = 0, end = down;  // of the chunk
    for (int64_t j = t1.first; j < t1.last; ++j) {
      const int64_t b = t1.start + j * w.dim[1].dilation;
      for (int64_t i = t0.first; i < t0.last; ++i, ++count) {
        const int64_t a = t0.start + i * w.dim[0].dilation;
        const float v = x[(a * w.dim[1].in + b) * w.dim[2].in + t2.start + k * w.dim[2].dilation];
        if (count == end) {
          total = end == down ? part : total + part;
          end += down;
          part = v;
        } else {
          part = count == 0 ? v : part + v;
        }
      }
    }
    return end == down ? part : total + part;
  };
  float total = 0;
  bool begun = t2.first >= across;  // by chunks of padding
  for (int64_t k = t2.first; k < t2.last;) {
    const int64_t end = std::min(t2.last, (k / across + 1) * across);
    float part = k % across == 0 ? column(k) : 0.0f + column(k);
    while (++k < end) part += column(k);
    total = begun ? total + part : part;
    begun = true;
  }
  return t2.last < w.dim[2].kernel ? total + 0.0f : total;
}

/// Float32 as above, the others in double.
template <class T>
void run_average(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const PoolParams*>(params);
  const Window& w = p.window;
  const auto one_chunk = [](int64_t k) { return kernels::sum_chunk(k) >= k; };
  const bool few = one_chunk(w.dim[0].kernel * w.dim[1].kernel) && one_chunk(w.dim[2].kernel);
  WorkMeter meter;
  bool on = true;
  for (int64_t plane = 0; plane < p.planes; ++plane) {
    const T* x = reinterpret_cast<const T*>(io[0]) + plane * w.in_elements();
    T* y = reinterpret_cast<T*>(io[1]) + plane * w.out_elements();
    for_each_window(w, [&](int64_t o, const std::array<int64_t, 3>& at) {
      if (o % kWindows == 0) on = meter.go_on(kWindows * 2 * w.kernel_elements());
      if (!on) return;
      int64_t count = 1;
      for (size_t d = 0; d < 3; ++d)
        count *= (p.include_pad ? w.dim[d].taps_with_padding(at[d]) : w.dim[d].taps(at[d])).count();
      if constexpr (std::is_same_v<T, float>) {
        y[o] = (few ? sum_of_taps(w, at, x) : sum_of_many_taps(w, at, x)) /
               static_cast<float>(std::max<int64_t>(1, count));
        return;
      }
      double sum = 0;
      for_each_tap(w, at, [&](int64_t i) { sum += static_cast<double>(load(x[i])); });
      y[o] = store<T>(static_cast<Compute<T>>(count == 0 ? 0 : sum / static_cast<double>(count)));
    });
  }
}

template <class T>
void run_lp(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const PoolParams*>(params);
  const Window& w = p.window;
  WorkMeter meter;
  bool on = true;
  for (int64_t plane = 0; plane < p.planes; ++plane) {
    const T* x = reinterpret_cast<const T*>(io[0]) + plane * w.in_elements();
    T* y = reinterpret_cast<T*>(io[1]) + plane * w.out_elements();
    for_each_window(w, [&](int64_t o, const std::array<int64_t, 3>& at) {
      if (o % kWindows == 0) on = meter.go_on(kWindows * 4 * w.kernel_elements());
      if (!on) return;
      double sum = 0;
      for_each_tap(w, at, [&](int64_t i) {
        const double v = std::abs(static_cast<double>(load(x[i])));
        sum += p.p == 1 ? v : p.p == 2 ? v * v : std::pow(v, p.p);
      });
      const double root = p.p == 1 ? sum : p.p == 2 ? std::sqrt(sum) : std::pow(sum, 1 / p.p);
      y[o] = store<T>(static_cast<Compute<T>>(root));
    });
  }
}

// ---- Float32 in one and two dimensions ------------------------------------------------------------------------------

struct FastParams {
  kernels::PoolArgs args;  // of one plane; x and y are filled in
  int64_t planes;
  bool average;
};

void run_fast(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const FastParams*>(params);
  const int64_t in = p.args.h.in * p.args.w.in, out = p.args.h.out * p.args.w.out;
  const auto fn = p.average ? kernels::pool_kernels().average : kernels::pool_kernels().max;
  const auto planes = [&](int64_t first, int64_t last) {
    kernels::PoolArgs args = p.args;
    args.x = reinterpret_cast<const float*>(io[0]) + first * in;
    args.y = reinterpret_cast<float*>(io[1]) + first * out;
    fn(args, last - first);
  };
  if (!context.pool || context.max_threads < 2 || p.planes * in < kParallelElements) {
    WorkMeter meter;
    for_blocks(meter, 0, p.planes, std::max<int64_t>(1, out * p.args.h.kernel), planes);
    return;
  }
  const int64_t block = std::max<int64_t>(1, (kParallelElements / 4) / std::max<int64_t>(1, in));
  context.pool->parallel_for((p.planes + block - 1) / block, context.max_threads,
                             [&](int64_t i) { planes(i * block, std::min(p.planes, (i + 1) * block)); });
}

/// The same over blocks of sixteen channels.
void run_blocks(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const FastParams*>(params);
  kernels::PoolArgs args = p.args;
  args.x = reinterpret_cast<const float*>(io[0]);
  args.y = reinterpret_cast<float*>(io[1]);
  const auto fn = p.average ? kernels::pool_kernels().average_of_blocks : kernels::pool_kernels().max_of_blocks;
  const int64_t rows = p.planes / kBlockChannels * args.h.out, of_row = args.w.out * kBlockChannels;
  if (!context.pool || context.max_threads < 2 || p.planes * args.h.in * args.w.in < kParallelElements) {
    WorkMeter meter;
    for_blocks(meter, 0, rows, of_row * args.h.kernel, [&](int64_t first, int64_t last) { fn(args, first, last); });
    return;
  }
  const int64_t block = std::max<int64_t>(1, (kParallelElements / 16) / std::max<int64_t>(1, of_row));
  context.pool->parallel_for((rows + block - 1) / block, context.max_threads,
                             [&](int64_t i) { fn(args, i * block, std::min(rows, (i + 1) * block)); });
}

FastParams fast_params(const NodeContext& c, PoolOp op) {
  const Window w = pool_window(c);
  FastParams f{};
  f.planes = c.input(0).shape[0] * c.input(0).shape[1];
  f.average = op == PoolOp::kAverage;
  f.args.include_pad = c.attr_int("count_include_pad", 0) != 0;
  const auto copy = [](const WindowDim& d) {
    return kernels::PoolDim{d.in, d.out, d.kernel, d.stride, d.dilation, d.pad_begin, d.pad_end};
  };
  f.args.h = copy(w.dim[1]);
  f.args.w = copy(w.dim[2]);
  return f;
}

double taps_of(const Window& w) { return multiplied(w.out_elements(), w.kernel_elements()); }

double fast_nanos(const NodeContext& c) {
  return static_cast<double>(c.input(0).shape[0] * c.input(0).shape[1]) * taps_of(pool_window(c)) * 0.1;
}

// ---- Float32 in three dimensions ------------------------------------------------------------------------------------

/// The slices that a window covers, seen as one plane: row b of slice i is row b * slices + i of that. Of a maximum,
/// whose order changes nothing, the slices become one first.
struct VolumeParams {
  kernels::PoolArgs args;  // of one slice; x and y are filled in
  WindowDim depth;
  int64_t volumes;
  int64_t slot_floats;
  int slots;
  bool average;
};

/// The outputs of one depth, of one volume. io: x, y, scratch.
void pool_slices(const VolumeParams& p, std::byte* const* io, int64_t task, float* scratch) {
  const int64_t volume = task / p.depth.out, o = task % p.depth.out;
  const int64_t width = p.args.w.in, slice = p.args.h.in * width;
  const auto taps = p.depth.taps(o);
  const int64_t count = std::max<int64_t>(taps.last - taps.first, 1);
  const float* x = reinterpret_cast<const float*>(io[0]) + volume * p.depth.in * slice;
  kernels::PoolArgs args = p.args;
  args.y = reinterpret_cast<float*>(io[1]) + task * p.args.h.out * p.args.w.out;
  args.x = x + (taps.start + taps.first * p.depth.dilation) * slice;
  if (taps.last == taps.first) {
    args.h.in = 0;  // padding alone
  } else if (count > 1 && !p.average) {
    const auto larger = kernels::binary_fn(kernels::Binary::kMax, kernels::BinaryForm::kVectorVector);
    const int64_t step = p.depth.dilation * slice;
    larger(args.x, args.x + step, scratch, slice);
    for (int64_t i = 2; i < count; ++i) larger(scratch, args.x + i * step, scratch, slice);
    args.x = scratch;
  } else if (count > 1) {
    for (int64_t i = 0; i < count; ++i) {
      const float* from = args.x + i * p.depth.dilation * slice;
      for (int64_t b = 0; b < args.h.in; ++b)
        std::memcpy(scratch + (b * count + i) * width, from + b * width, static_cast<size_t>(width) * sizeof(float));
    }
    args.x = scratch;
  }
  if (p.average) {
    args.slices = count;
    args.counted = args.include_pad ? std::max<int64_t>(p.depth.taps_with_padding(o).count(), 1) : count;
    for (int64_t* size : {&args.h.in, &args.h.kernel, &args.h.stride, &args.h.pad_begin, &args.h.pad_end})
      *size *= count;
  }
  (p.average ? kernels::pool_kernels().average : kernels::pool_kernels().max)(args, 1);
}

void run_volumes(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const VolumeParams*>(params);
  for_tasks(context, p.volumes * p.depth.out, p.slots, [&](int64_t task, int64_t slot) {
    pool_slices(p, io, task, reinterpret_cast<float*>(io[2]) + slot * p.slot_floats);
  });
}

void lower_volumes(LowerContext& c, PoolOp op) {
  const FastParams f = fast_params(c, op);
  VolumeParams p{};
  p.args = f.args;
  p.depth = pool_window(c).dim[0];
  p.volumes = f.planes;
  p.average = f.average;
  p.slot_floats = ((p.average ? p.depth.kernel : 1) * p.args.h.in * p.args.w.in + 15) / 16 * 16;
  const int64_t work = p.volumes * p.depth.in * p.args.h.in * p.args.w.in;
  p.slots = work < kParallelElements ? 1 : std::min(c.threads(), kMaxSlots);
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  c.step(run_volumes, p, {c.in(0), c.out(0), scratch}, fast_nanos(c) + static_cast<double>(work) / 10);
}

/// Why the slices of its windows cannot be seen as one plane; null where they can.
const char* why_no_volumes(const Window& w, bool average) {
  if (w.rank < 3) return nullptr;
  if (multiplied(w.dim[0].kernel, w.dim[1].in, w.dim[2].in) > 1 << 24)
    return "the window has three dimensions, and its slices are too large";
  if (!average) return nullptr;
  if (w.dim[1].dilation != 1) return "the window has three dimensions, and gaps between its rows";
  if (kernels::sum_chunk(w.dim[0].kernel * w.dim[1].kernel) < w.dim[0].kernel * w.dim[1].kernel)
    return "the window has three dimensions, and a long sum";
  return nullptr;
}

// ---- The ways -------------------------------------------------------------------------------------------------------

template <PoolOp kOp>
Cost fast_cost(const NodeContext& c) {
  if (const char* why = why_no_volumes(pool_window(c), kOp == PoolOp::kAverage)) return Cost::cannot(why);
  if (c.has_output(1)) return Cost::cannot("the indices are asked for");
  if (kernels::pool_row_elements(fast_params(c, kOp).args.w) > kernels::kPoolRow) {
    return Cost::cannot("a row is too long for the kernel");
  }
  return Cost(fast_nanos(c));
}

double blocks_nanos(const NodeContext& c) {
  return pool_blocks_nanos(c.output(0).shape, pool_window(c).kernel_elements());
}

template <PoolOp kOp>
void lower_fast(LowerContext& c) {
  if (pool_window(c).rank > 2) return lower_volumes(c, kOp);
  if (c.wanted(0) == Layout::kBlocks) {
    return c.step(run_blocks, fast_params(c, kOp), {c.in(0), c.out(0)}, blocks_nanos(c));
  }
  c.step(run_fast, fast_params(c, kOp), {c.in(0), c.out(0)}, fast_nanos(c));
}

/// Whether run_max_rows is the generic way.
bool pools_bytes(const NodeContext& c, const Window& w) {
  const bool bytes = c.input(0).dtype == DType::kU8 || c.input(0).dtype == DType::kI8;
  return bytes && !c.has_output(1) && pools_bytes_by_rows(w);
}

double generic_nanos(const NodeContext& c) {
  const Window w = pool_window(c);
  if (pools_bytes(c, w)) {
    return multiplied(c.input(0).shape[0] * c.input(0).shape[1], w.dim[0].out * w.dim[1].out) * byte_row_nanos(w);
  }
  return static_cast<double>(c.input(0).shape[0] * c.input(0).shape[1]) * static_cast<double>(w.out_elements()) *
         (5 + static_cast<double>(w.kernel_elements()));
}

Cost generic_cost(const NodeContext& c) { return Cost(generic_nanos(c)); }

template <PoolOp kOp>
void lower_generic(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  PoolParams p{};
  p.window = pool_window(c);
  p.planes = x.shape[0] * x.shape[1];
  p.include_pad = c.attr_int("count_include_pad", 0) != 0;
  p.column_major = c.attr_int("storage_order", 0) != 0;
  if (kOp == PoolOp::kLp) p.p = static_cast<double>(norm_of(c));
  require_type(c, 0, kOp == PoolOp::kMax ? kMaxTypes : kFloatTypes);
  if constexpr (kOp == PoolOp::kMax) {
    const bool rows = pools_bytes(c, p.window);
    const auto fn = rows ? (x.dtype == DType::kU8 ? run_max_rows<uint8_t> : run_max_rows<int8_t>)
                         : dispatch<kMaxTypes>(x.dtype, []<class T>() -> StepFn { return run_max<T>; });
    c.step(fn, p, {c.in(0), c.out(0), c.has_output(1) ? c.out(1) : Ref{}}, generic_nanos(c));
  } else {
    const auto fn = dispatch<kFloatTypes>(
        x.dtype, []<class T>() -> StepFn { return kOp == PoolOp::kLp ? run_lp<T> : run_average<T>; });
    c.step(fn, p, {c.in(0), c.out(0)}, generic_nanos(c));
  }
}

void infer_global(InferContext& c) {
  if (c.node().op_type == "GlobalLpPool") norm_of(c);
  const TensorFacts& x = c.input(0);
  if (x.shape.rank() < 2) c.fail(cat("expected [batch, channels, spatial...], got ", x.shape.str()));
  Shape out = x.shape;
  for (size_t i = 2; i < out.rank(); ++i) out[i] = 1;
  c.set_output(0, x.dtype, out);
}

void lower_global(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  require_type(c, 0, kFloatTypes);
  const int64_t rows = x.shape[0] * x.shape[1], n = x.shape.elements(2, x.shape.rank());
  if (rows == 0) return;
  if (n == 0) c.fail(cat("nothing to pool in ", x.shape.str()));
  if (c.node().op_type == "GlobalLpPool") {
    const int64_t p = norm_of(c);
    if (p != 1 && p != 2) {
      PoolParams params{};
      params.window.dim[2] = {n, 1, n, 1, 1, 0, 0};
      params.planes = rows;
      params.p = static_cast<double>(p);
      const auto fn = dispatch<kFloatTypes>(x.dtype, []<class T>() -> StepFn { return run_lp<T>; });
      return c.step(fn, params, {c.in(0), c.out(0)}, multiplied(rows, n) * 20);
    }
    return lower_reduce_channels(c, p == 1 ? ReduceOp::kL1 : ReduceOp::kL2, rows, n);
  }
  lower_reduce_channels(c, c.node().op_type == "GlobalMaxPool" ? ReduceOp::kMax : ReduceOp::kMean, rows, n);
}

double global_blocks_nanos(const NodeContext& c, bool in_blocks, bool) {
  const Shape& x = c.input(0).shape;
  const bool other_norm = c.node().op_type == "GlobalLpPool" && norm_of(c) > 2;
  if (in_blocks && other_norm) return std::numeric_limits<double>::infinity();
  return reduce_channels_nanos(x[0] * x[1], x.elements(2, x.rank()), in_blocks);
}

/// Places count from the first row of the run: only MaxUnpool, which counts as well, makes of them what they are alone.
bool places_are_read(const Node& node, const Graph& graph) {
  if (node.outputs.size() < 2 || node.outputs[1] == kNoValue) return false;
  const auto unpools = [](const Node& reader) { return reader.op_type == "MaxUnpool"; };
  return !is_read_only_by(graph, node.outputs[1], unpools);
}

}  // namespace

void register_pool(OpRegistry& r) {
  const OpSchema one{
      .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_pool, .mixed_axes = mixed_by_pool};
  const auto named = [](OpSchema schema, std::string_view name) {
    schema.name = name;
    return schema;
  };
  const auto ways = [](LowerFn fast, CostFn cost, LowerFn generic) -> std::vector<Lowering> {
    return {{.name = "planes",
             .lower = fast,
             .cost = cost,
             .precision = Precision::kFloat32,
             .alike_cost = [](const NodeContext& c) { return Cost(blocks_nanos(c)); }},
            {.name = "generic", .lower = generic, .cost = generic_cost}};
  };
  OpSchema max = named(one, "MaxPool");
  max.max_outputs = 2;
  max.rows_mix = places_are_read;
  r.add(max, ways(lower_fast<PoolOp::kMax>, fast_cost<PoolOp::kMax>, lower_generic<PoolOp::kMax>));
  r.add(named(one, "AveragePool"),
        ways(lower_fast<PoolOp::kAverage>, fast_cost<PoolOp::kAverage>, lower_generic<PoolOp::kAverage>));
  r.add(named(one, "LpPool"), lower_generic<PoolOp::kLp>);
  OpSchema global = one;
  global.infer = infer_global;
  for (const std::string_view name : {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}) {
    r.add(named(global, name), {{.name = kOnlyLowering, .lower = lower_global, .blocks_nanos = global_blocks_nanos}});
  }
}

}  // namespace inferkit
