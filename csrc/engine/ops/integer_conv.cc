// ConvInteger and QLinearConv: windows of bytes, summed exactly in int32 (which wraps where it must). Padding stands
// for the zero point, so it adds nothing. Integer GEMM with the filters as A and the windows of a block of output
// pixels as B; at stride 1 the windows where they lie; the kernel of float32 for depthwise convolutions, whose sums are
// whole numbers that float32 holds; a plain loop where a group has few filters.
#include "engine/ops/common/integer_conv.h"

#include <cstring>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/byte_product.h"
#include "engine/ops/common/conv.h"
#include "engine/ops/common/quantization.h"
#include "engine/ops/common/requantize.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/quantize/quantize.h"

namespace inferkit {

int64_t filter_stride(const NodeContext& c, size_t i, int64_t filters) {
  if (!c.has_input(i) || c.input(i).shape.elements() == 1) return 0;
  if (c.input(i).shape != Shape{filters}) {
    c.fail(cat("input ", i, " has shape ", c.input(i).shape.str(), "; expected one value or ", filters));
  }
  return 1;
}

IntegerConv integer_conv(const NodeContext& c, const ConvOperands& at) {
  const Shape &x = c.input(at.x).shape, &w = c.input(at.w).shape;
  if (w.rank() != x.rank() || w.rank() < 3) {
    c.fail(cat("expected [batch, channels, spatial...] and [filters, channels, kernel...], got ", x.str(), " and ",
               w.str()));
  }
  const std::vector<int64_t> kernel(w.begin() + 2, w.end());
  const auto declared = c.attr_ints("kernel_shape");
  if (!declared.empty() && declared != kernel) c.fail(cat("kernel_shape is not that of the weights, ", w.str()));
  const int64_t groups = group_count(c);
  if (w[0] % groups != 0 || x[1] != w[1] * groups) {
    c.fail(cat("weights of shape ", w.str(), " in ", counted(groups, "group"), " do not fit ", x.str()));
  }
  if (c.has_input(at.x_zero) && c.input(at.x_zero).shape.elements() != 1) c.fail("the input has one zero point");
  return {make_window(c, x, kernel, false), x[0], groups, w[1], w[0] / groups, filter_stride(c, at.w_zero, w[0])};
}

namespace {

constexpr ConvOperands kConvInteger{0, 1, 2, 3};
constexpr ConvOperands kQLinearConv{0, 3, 2, 5};

/// The outputs [first, last) of one dimension whose tap `k` falls inside the input.
struct Reach {
  int64_t start, first, last;
};
Reach reach(const WindowDim& d, int64_t k) {
  const int64_t start = k * d.dilation - d.pad_begin;
  const int64_t first = start < 0 ? (-start + d.stride - 1) / d.stride : 0;
  const int64_t last = d.in > start ? std::min(d.out, (d.in - 1 - start) / d.stride + 1) : 0;
  return {start, first, last};
}

/// sums += weight * (plane - zero) over one channel and one tap.
template <class X>
void add_tap(const Window& w, const X* plane, int32_t zero, int32_t weight, const std::array<int64_t, 3>& tap,
             uint32_t* sums) {
  const Reach depth = reach(w.dim[0], tap[0]), rows = reach(w.dim[1], tap[1]), line = reach(w.dim[2], tap[2]);
  const int64_t stride = w.dim[2].stride;
  for (int64_t z = depth.first; z < depth.last; ++z) {
    for (int64_t y = rows.first; y < rows.last; ++y) {
      const int64_t in_z = z * w.dim[0].stride + depth.start, in_y = y * w.dim[1].stride + rows.start;
      const X* source = plane + (in_z * w.dim[1].in + in_y) * w.dim[2].in + line.start;
      uint32_t* target = sums + (z * w.dim[1].out + y) * w.dim[2].out;
      for (int64_t x = line.first; x < line.last; ++x) {
        target[x] += static_cast<uint32_t>(weight * (int32_t{source[x * stride]} - zero));
      }
    }
  }
}

double taps_nanos(const IntegerConv& p) {
  const double outputs = multiplied(p.batch, p.groups, p.filters, p.window.out_elements());
  return outputs * multiplied(p.channels, p.window.kernel_elements()) / 8;
}

/// Copying and packing the windows costs more than the products of two filters.
double gemm_nanos(const IntegerConv& p, double products_per_nano) {
  const double windows = multiplied(p.batch, p.groups, p.window.out_elements(), p.channels, p.window.kernel_elements());
  return windows * static_cast<double>(p.filters) / products_per_nano + windows / 4;
}

// ---- Few filters per group: tap by tap ------------------------------------------------------------------------------

/// io: the sums, x, w, and their zero points or null.
template <class X, class W>
void taps_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const IntegerConv*>(params);
  const int64_t plane = p.window.in_elements(), out = p.window.out_elements(), taps = p.window.kernel_elements();
  const int64_t filters = p.groups * p.filters;
  const int32_t x_zero = io[3] ? int32_t{*reinterpret_cast<const X*>(io[3])} : 0;
  const auto* w_zero = reinterpret_cast<const W*>(io[4]);
  const auto filter_of = [&](int64_t index) {
    WorkMeter meter;
    const int64_t n = index / filters, f = index % filters;
    uint32_t* sums = reinterpret_cast<uint32_t*>(io[0]) + index * out;
    std::fill(sums, sums + out, 0u);
    const int32_t zero = w_zero ? int32_t{w_zero[f * p.zero_stride]} : 0;
    const W* weights = reinterpret_cast<const W*>(io[2]) + f * p.channels * taps;
    for (int64_t ch = 0; ch < p.channels; ++ch) {
      if (!meter.go_on(taps * out)) return;
      const X* source =
          reinterpret_cast<const X*>(io[1]) + (n * p.groups * p.channels + f / p.filters * p.channels + ch) * plane;
      for (int64_t tap = 0; tap < taps; ++tap) {
        const int64_t kx = p.window.dim[2].kernel, ky = p.window.dim[1].kernel;
        add_tap(p.window, source, x_zero, int32_t{weights[ch * taps + tap]} - zero,
                {tap / (kx * ky), tap / kx % ky, tap % kx}, sums);
      }
    }
  };
  const int64_t work = std::max<int64_t>(1, p.channels * taps * out);
  for_ranges(context, p.batch * filters, (int64_t{1} << 18) / work, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) filter_of(i);
  });
}

void lower_taps(LowerContext& c, const IntegerConv& p, Ref out, const ConvOperands& at) {
  const StepFn fn = dispatch<kByteTypes>(c.input(at.x).dtype, [&]<class X>() -> StepFn {
    return dispatch<kByteTypes>(c.input(at.w).dtype, []<class W>() -> StepFn { return taps_step<X, W>; });
  });
  const auto zero = [&](size_t i) { return c.has_input(i) ? c.in(i) : Ref{}; };
  c.step(fn, p, {out, c.in(at.x), c.in(at.w), zero(at.x_zero), zero(at.w_zero)}, taps_nanos(p));
}

// ---- GEMM -----------------------------------------------------------------------------------------------------------

constexpr int64_t kBlockBytes = 96 << 10;  // of windows: they stay in L2, twice, beside the weights
constexpr int64_t kMinBlock = 64;          // pixels

struct GemmConvParams {
  IntegerConv conv;
  kernels::IgemmArgs gemm;  // m and k of one group; its pointers are filled in
  bool pointwise;           // the windows are the image
  int64_t block, blocks;    // of output pixels
  int64_t row_bytes;        // of packed filters
  int64_t windows_bytes;    // of a slot: the windows, then the packed ones
  int64_t slot_bytes;
  int slots;
};

/// Output pixels [first, first + count) as seen by one tap of one channel: the bytes of its plane, `zero` outside.
void copy_tap(const Window& w, const std::byte* plane, std::byte zero, const std::array<int64_t, 3>& tap, int64_t first,
              int64_t count, std::byte* to) {
  const Reach line = reach(w.dim[2], tap[2]);
  const auto inside = [](const WindowDim& d, int64_t in) { return in >= 0 && in < d.in; };
  while (count > 0) {
    const int64_t x = first % w.dim[2].out, row = first / w.dim[2].out;
    const int64_t run = std::min(count, w.dim[2].out - x);
    const int64_t y = row % w.dim[1].out * w.dim[1].stride + tap[1] * w.dim[1].dilation - w.dim[1].pad_begin;
    const int64_t z = row / w.dim[1].out * w.dim[0].stride + tap[0] * w.dim[0].dilation - w.dim[0].pad_begin;
    int64_t from = std::clamp(line.first - x, int64_t{0}, run), last = std::clamp(line.last - x, from, run);
    if (!inside(w.dim[1], y) || !inside(w.dim[0], z)) from = last = run;
    std::fill(to, to + from, zero);
    const std::byte* source = plane + (z * w.dim[1].in + y) * w.dim[2].in + line.start;
    const int64_t stride = w.dim[2].stride;
    if (stride == 1 && last > from) {
      std::memcpy(to + from, source + x + from, static_cast<size_t>(last - from));
    } else {
      for (int64_t i = from; i < last; ++i) to[i] = source[(x + i) * stride];
    }
    std::fill(to + last, to + run, zero);
    first += run;
    count -= run;
    to += run;
  }
}

/// One block of pixels of one image and group. io: the sums, x, packed weights, zero points of x and w or null,
/// scratch.
void gemm_task(const GemmConvParams& p, std::byte* const* io, int64_t task, std::byte* scratch) {
  const Window& w = p.conv.window;
  const int64_t image = task / p.blocks, group = image % p.conv.groups;  // an image and a group of its channels
  const int64_t out = w.out_elements(), in = w.in_elements(), taps = w.kernel_elements();
  const int64_t pixel = task % p.blocks * p.block, count = std::min(p.block, out - pixel);
  const std::byte* x = io[1] + image * p.conv.channels * in;
  kernels::ByteMatrix windows{x + pixel, in, 1, p.gemm.b_signed};
  if (!p.pointwise) {
    const int64_t ky = w.dim[1].kernel, kx = w.dim[2].kernel;
    const std::byte zero = io[3] ? *io[3] : std::byte{};
    for (int64_t k = 0; k < p.gemm.k; ++k) {
      const int64_t tap = k % taps;
      copy_tap(w, x + k / taps * in, zero, {tap / (kx * ky), tap / kx % ky, tap % kx}, pixel, count,
               scratch + k * p.block);
    }
    windows = {scratch, p.block, 1, p.gemm.b_signed};
  }
  const auto& kernels = kernels::igemm_kernels();
  kernels.pack_b(windows, p.gemm.k, count, scratch + p.windows_bytes);
  kernels::IgemmArgs g = p.gemm;
  g.n = count;
  g.a = io[2] + group * g.m * p.row_bytes;
  g.b = scratch + p.windows_bytes;
  g.b_zero.data = io[3];
  if (io[4]) g.a_zero.data = io[4] + group * g.m * p.conv.zero_stride;
  g.c = reinterpret_cast<int32_t*>(io[0]) + image * g.m * out + pixel;
  kernels.gemm(g);
}

void gemm_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const GemmConvParams*>(params);
  for_tasks(context, p.conv.batch * p.conv.groups * p.blocks, p.slots,
            [&](int64_t task, int64_t slot) { gemm_task(p, io, task, io[5] + slot * p.slot_bytes); });
}

void lower_gemm(LowerContext& c, const IntegerConv& conv, Ref out, const ConvOperands& at) {
  GemmConvParams p{};
  p.conv = conv;
  p.gemm.m = conv.filters;
  p.gemm.k = conv.channels * conv.window.kernel_elements();
  p.gemm.ldc = conv.window.out_elements();
  p.gemm.a_signed = c.input(at.w).dtype == DType::kI8;
  p.gemm.b_signed = c.input(at.x).dtype == DType::kI8;
  p.gemm.a_zero.per_line = conv.zero_stride != 0;
  p.pointwise = conv.window.kernel_elements() == 1 && !conv.window.has_padding();
  for (const WindowDim& d : conv.window.dim) p.pointwise = p.pointwise && d.stride == 1;
  const auto& kernels = kernels::igemm_kernels();
  p.row_bytes = kernels::igemm_row_bytes(kernels, p.gemm.k);
  const int64_t fit = kBlockBytes / std::max<int64_t>(1, p.gemm.k) / kernels::kIgemmColumns * kernels::kIgemmColumns;
  const int64_t images = conv.batch * conv.groups;
  const double products = multiplied(images, conv.filters, p.gemm.k, p.gemm.ldc);
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  p.block = std::min(p.gemm.ldc, std::max(kMinBlock, fit));
  if (images < 2 * p.slots) {  // two tasks per thread at least, where blocks stay worth their weights
    const int64_t want = (2 * p.slots + images - 1) / images;
    p.block = std::min(p.block, std::max(kMinBlock, (p.gemm.ldc + want - 1) / want));
  }
  p.blocks = (p.gemm.ldc + p.block - 1) / p.block;
  p.windows_bytes = p.pointwise ? 0 : (p.block * p.gemm.k + 63) / 64 * 64;
  p.slot_bytes = p.windows_bytes + packed_right_bytes(p.gemm.k, p.block);
  const Ref weights = packed_left(c, at.w, conv.groups * conv.filters, p.gemm.k);
  const auto zero = [&](size_t i) { return c.has_input(i) ? c.in(i) : Ref{}; };
  c.step(gemm_step, p,
         {out, c.in(at.x), weights, zero(at.x_zero), zero(at.w_zero),
          c.scratch(static_cast<size_t>(p.slot_bytes) * static_cast<size_t>(p.slots))},
         gemm_nanos(conv, kernels::igemm_kernels().products_per_nano));
}

// ---- The ways -------------------------------------------------------------------------------------------------------

/// Of products, where ways are compared: so that they are chosen alike on every machine.
constexpr double kCostPerNano = 100;

using LowerConv = void (*)(LowerContext&, const IntegerConv&, Ref out, const ConvOperands&);

template <const ConvOperands& kAt>
Cost taps_cost(const NodeContext& c) {
  return Cost(taps_nanos(integer_conv(c, kAt)));
}
template <const ConvOperands& kAt>
Cost gemm_cost(const NodeContext& c) {
  return Cost(gemm_nanos(integer_conv(c, kAt), kCostPerNano));
}

template <const ConvOperands& kAt>
Cost windows_cost(const NodeContext& c) {
  return integer_windows_cost(c, integer_conv(c, kAt), kAt);
}

template <const ConvOperands& kAt>
Cost planes_cost(const NodeContext& c) {
  return integer_planes_cost(integer_conv(c, kAt));
}

void check_types(const NodeContext& c, const ConvOperands& at) {
  require_type(c, at.x, kByteTypes);
  require_type(c, at.w, kByteTypes);
  if (c.has_input(at.x_zero)) require_same_type(c, at.x, at.x_zero);
  if (c.has_input(at.w_zero)) require_same_type(c, at.w, at.w_zero);
}

void infer_conv_integer(InferContext& c) {
  check_window_attributes(c);
  check_types(c, kConvInteger);
  const IntegerConv p = integer_conv(c, kConvInteger);
  c.set_output(0, DType::kI32, window_output(p.window, p.batch, p.groups * p.filters));
}
template <LowerConv kLower>
void lower_conv_integer(LowerContext& c) {
  kLower(c, integer_conv(c, kConvInteger), c.out(0), kConvInteger);
}

// x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias
void infer_qlinear_conv(InferContext& c) {
  check_window_attributes(c);
  check_types(c, kQLinearConv);
  for (const size_t i : {1, 4, 6}) require_type(c, i, types(DType::kF32));
  require_type(c, 7, kByteTypes);
  for (const size_t i : {1, 6, 7}) {
    if (c.input(i).shape.elements() != 1) c.fail(cat("input ", i, " must be one value"));
  }
  const IntegerConv p = integer_conv(c, kQLinearConv);
  const int64_t filters = p.groups * p.filters;
  filter_stride(c, 4, filters);
  if (c.has_input(8)) {
    require_type(c, 8, types(DType::kI32));
    if (c.input(8).shape != Shape{filters}) c.fail(cat("the bias has shape ", c.input(8).shape.str()));
  }
  c.set_output(0, c.input(7).dtype, window_output(p.window, p.batch, filters));
}

template <LowerConv kLower>
void lower_qlinear_conv(LowerContext& c) {
  const IntegerConv p = integer_conv(c, kQLinearConv);
  const int64_t filters = p.groups * p.filters;
  const Ref sums = c.scratch(static_cast<size_t>(c.output(0).shape.elements()) * sizeof(int32_t));
  kLower(c, p, sums, kQLinearConv);
  const RequantizeParams r{p.batch, filters, p.window.out_elements(), 1, 0, filter_stride(c, 4, filters)};
  lower_requantize(c, r, c.out(0), sums, c.in(1), c.in(4), c.in(6), c.in(7), c.has_input(8) ? c.in(8) : Ref{});
}

void lower_planes(LowerContext& c, const IntegerConv& conv, Ref out, const ConvOperands& at) {
  lower_integer_planes(c, conv, out, at, PlanesGive::kSums, 0);
}
void lower_qlinear_planes(LowerContext& c) {
  const IntegerConv p = integer_conv(c, kQLinearConv);
  const PlanesGive give = c.output(0).dtype == DType::kU8 ? PlanesGive::kU8 : PlanesGive::kI8;
  lower_integer_planes(c, p, c.out(0), kQLinearConv, give, filter_stride(c, 4, p.groups * p.filters));
}

}  // namespace

void register_integer_conv(OpRegistry& r) {
  r.add({.name = "ConvInteger",
         .since = 10,
         .min_inputs = 2,
         .max_inputs = 4,
         .max_outputs = 1,
         .infer = infer_conv_integer,
         .mixed_axes = conv_axes<1>},
        {{.name = "planes", .lower = lower_conv_integer<lower_planes>, .cost = planes_cost<kConvInteger>},
         {.name = "windows", .lower = lower_conv_integer<lower_integer_windows>, .cost = windows_cost<kConvInteger>},
         {.name = "gemm", .lower = lower_conv_integer<lower_gemm>, .cost = gemm_cost<kConvInteger>},
         {.name = "taps", .lower = lower_conv_integer<lower_taps>, .cost = taps_cost<kConvInteger>}});
  r.add({.name = "QLinearConv",
         .since = 10,
         .min_inputs = 8,
         .max_inputs = 9,
         .max_outputs = 1,
         .infer = infer_qlinear_conv,
         .mixed_axes = conv_axes<3>},
        {{.name = "planes", .lower = lower_qlinear_planes, .cost = planes_cost<kQLinearConv>},
         {.name = "windows", .lower = lower_qlinear_conv<lower_integer_windows>, .cost = windows_cost<kQLinearConv>},
         {.name = "gemm", .lower = lower_qlinear_conv<lower_gemm>, .cost = gemm_cost<kQLinearConv>},
         {.name = "taps", .lower = lower_qlinear_conv<lower_taps>, .cost = taps_cost<kQLinearConv>}});
}

}  // namespace inferkit
