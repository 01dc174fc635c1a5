// Conv in one to three dimensions, with groups, and our own Conv with a fused activation. Float32 runs GEMM with the
// weights as A and the packed windows of a block of output pixels as B, or read in place (common/conv_windows.cc), or
// the other way round (common/conv_rows.cc), or the depthwise kernel; the other types run a plain loop in double.
#include "engine/ops/common/conv.h"

#include "engine/compile/op_registry.h"
#include "engine/ops/activation_attr.h"
#include "engine/ops/dispatch.h"
#include "kernels/cpu/gemm/gemm.h"

namespace inferkit {
namespace {

constexpr int64_t kBlockBytes = 384 << 10;  // of packed windows: they stay in L2 beside the weights
constexpr int64_t kMinBlock = 64;           // pixels
constexpr int64_t kPlaneBytes = 64 << 10;   // of a depthwise plane's padded rows
constexpr int64_t kLeastDepthwiseRows = 4;  // at a time

ConvShape conv_shape(const NodeContext& c) {
  const Shape &x = c.input(0).shape, &w = c.input(1).shape;
  if (w.rank() != x.rank() || w.rank() < 3) {
    c.fail(cat("expected [batch, channels, spatial...] and [filters, channels, kernel...], got ", x.str(), " and ",
               w.str()));
  }
  const std::vector<int64_t> kernel(w.begin() + 2, w.end());
  const auto declared = c.attr_ints("kernel_shape");
  if (!declared.empty() && declared != kernel) c.fail(cat("kernel_shape is not that of the weights, ", w.str()));
  const int64_t groups = group_count(c);
  if (w[0] % groups != 0 || x[1] != w[1] * groups) {
    c.fail(cat("weights of shape ", w.str(), " in ", groups, " groups do not fit ", x.str()));
  }
  if (c.has_input(2) && c.input(2).shape != Shape{w[0]})
    c.fail(cat("the bias has shape ", c.input(2).shape.str(), "; expected ", w[0], " values"));
  return {make_window(c, x, kernel, false), x[0], groups, w[1], w[0] / groups};
}

void infer_conv(InferContext& c) {
  check_window_attributes(c);
  require_type(c, 0, kFloatTypes);
  require_same_type(c, 0, 1);
  if (c.has_input(2)) require_same_type(c, 0, 2);
  const ConvShape s = conv_shape(c);
  c.set_output(0, c.input(0).dtype, window_output(s.window, s.batch, s.groups * s.filters));
}

// ---- Float32: GEMM --------------------------------------------------------------------------------------------------

enum class Source : uint8_t { kInPlace, kMatrix, kWindows };  // where B comes from

struct GemmConvParams {
  kernels::GemmArgs gemm;  // m, k, lda, ldc, activation; the rest is filled in
  kernels::ConvDim dim[3];
  Source source;
  int slots;
  int64_t batch, groups, channels, in_area, out_area;
  int64_t block, blocks;  // of output pixels
  int64_t parts;          // of the filters, where threads outnumber the blocks
  int64_t slot_floats;
};

void gemm_task(const GemmConvParams& p, std::byte* const* io, int64_t task, int64_t parts, float* scratch) {
  const int64_t part = task % parts, block = task / parts % p.blocks, image = task / parts / p.blocks;  // and group
  const int64_t group = image % p.groups, filters = p.gemm.m;
  const int64_t pixel = block * p.block, count = std::min(p.block, p.out_area - pixel);
  const int64_t row = filters * part / parts, rows = filters * (part + 1) / parts - row;
  const float* x = reinterpret_cast<const float*>(io[1]) + image * p.channels * p.in_area;
  kernels::GemmArgs g = p.gemm;
  g.m = rows;
  g.n = count;
  g.a = reinterpret_cast<const float*>(io[2]) + (group * filters + row) * g.k;
  g.c = reinterpret_cast<float*>(io[0]) + (image * filters + row) * p.out_area + pixel;
  if (io[3]) {
    g.bias = reinterpret_cast<const float*>(io[3]) + group * filters + row;
    g.bias_kind = kernels::BiasKind::kPerRow;
  }
  if (p.source == Source::kInPlace) {
    g.b = x + pixel;
    g.b_k_stride = p.in_area;
    g.b_panel_stride = kernels::kPanelColumns;
    return kernels::gemm_f32(g);
  }
  if (p.source == Source::kMatrix) {
    kernels::pack_b(x + pixel, p.in_area, g.k, count, scratch);
  } else {
    kernels::PackPixelsArgs pack;
    pack.x = x;
    pack.to = scratch;
    pack.channels = p.channels;
    for (int d = 0; d < 3; ++d) pack.dim[d] = p.dim[d];
    pack.first = pixel;
    pack.count = count;
    kernels::conv_kernels().pack_pixels(pack);
  }
  kernels::use_packed_b(g, scratch);
  kernels::gemm_f32(g);
}

/// io: y, x, weights, bias, scratch.
void run_gemm(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const GemmConvParams*>(params);
  const bool alone = !context.pool || context.max_threads < 2;
  const int64_t parts = alone ? 1 : p.parts;
  for_tasks(context, p.batch * p.groups * p.blocks * parts, p.slots, [&](int64_t task, int64_t slot) {
    gemm_task(p, io, task, parts, reinterpret_cast<float*>(io[4]) + slot * p.slot_floats);
  });
}

/// Of this way, as conv.h says of the others.
double packed_cost(const ConvShape& s) {
  const int64_t stride = s.window.dim[2].stride;
  const int64_t packing = s.pointwise() ? 0 : stride == 1 ? 10 : stride == 2 ? 18 : 50;  // of a vector, as measured
  const int64_t panels = (s.window.out_elements() + kernels::kPanelColumns - 1) / kernels::kPanelColumns;
  return static_cast<double>(panels) * static_cast<double>(s.window_elements()) *
         static_cast<double>(s.filters + packing);
}

void lower_gemm_conv(LowerContext& c, const ConvShape& s) {
  const Window& w = s.window;
  const FusedActivation act = fused_activation(c);
  GemmConvParams p{};
  p.gemm.m = s.filters;
  p.gemm.k = p.gemm.lda = s.window_elements();
  p.gemm.ldc = p.out_area = w.out_elements();
  p.gemm.act = act.op;
  p.gemm.act_alpha = act.alpha;
  p.gemm.act_beta = act.beta;
  p.gemm.k_chunk = kernels::sum_chunk(p.gemm.k);
  p.batch = s.batch;
  p.groups = s.groups;
  p.channels = s.channels;
  p.in_area = w.in_elements();
  for (size_t d = 0; d < 3; ++d) p.dim[d] = conv_dim(w.dim[d]);
  move_in(p.dim);
  p.source = !s.pointwise()                             ? Source::kWindows
             : p.out_area % kernels::kPanelColumns == 0 ? Source::kInPlace
                                                        : Source::kMatrix;
  const auto round = [](int64_t n) { return (n + kernels::kPanelColumns - 1) / kernels::kPanelColumns * 16; };
  const int64_t products = s.batch * s.groups * s.filters * p.gemm.k * p.out_area;
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  const int64_t fit = kBlockBytes / (static_cast<int64_t>(sizeof(float)) * std::max<int64_t>(1, p.gemm.k)) / 16 * 16;
  p.block = std::min(round(p.out_area), p.source == Source::kInPlace ? p.out_area : std::max(kMinBlock, fit));
  const int64_t images = s.batch * s.groups;
  if (p.slots > 1 && images < 2 * p.slots) {  // two tasks per thread at least, where blocks stay worth their weights
    const int64_t want = (2 * p.slots + images - 1) / images;
    p.block = std::min(p.block, std::max(kMinBlock, round((p.out_area + want - 1) / want)));
  }
  p.blocks = (p.out_area + p.block - 1) / p.block;
  p.parts = 1;
  if (images * p.blocks < p.slots)
    p.parts = std::max<int64_t>(1, std::min<int64_t>(p.slots / (images * p.blocks), s.filters / 24));
  Ref scratch;
  if (p.source != Source::kInPlace) {
    p.slot_floats = round(p.block) * p.gemm.k + 16;
    scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  }
  c.step(run_gemm, p, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}, scratch},
         static_cast<double>(products) / 30 + static_cast<double>(images * p.out_area * p.gemm.k) / 8);
}

// ---- Float32: depthwise ---------------------------------------------------------------------------------------------

struct DepthwiseParams {
  kernels::ConvDim h, w;
  kernels::Unary act;
  float act_alpha, act_beta;
  int slots;
  int64_t images, filters, groups;  // filters: per group, which is one input channel
  int64_t block, blocks;            // of output rows
  int64_t slot_floats;
};

void depthwise_task(const DepthwiseParams& p, std::byte* const* io, int64_t task, float* scratch) {
  const int64_t block = task % p.blocks, plane = task / p.blocks;  // an output plane
  const int64_t filter = plane % (p.filters * p.groups);
  kernels::DepthwiseArgs a;
  a.x = reinterpret_cast<const float*>(io[1]) + plane / p.filters * p.h.in * p.w.in;
  a.y = reinterpret_cast<float*>(io[0]) + plane * p.h.out * p.w.out;
  a.weights = reinterpret_cast<const float*>(io[2]) + filter * p.h.kernel * p.w.kernel;
  if (io[3]) a.bias = reinterpret_cast<const float*>(io[3])[filter];
  a.h = p.h;
  a.w = p.w;
  a.first = block * p.block;
  a.rows = std::min(p.block, p.h.out - a.first);
  a.scratch = scratch;
  kernels::conv_kernels().depthwise(a);
  if (p.act == kernels::Unary::kIdentity) return;
  float* y = a.y + a.first * p.w.out;
  kernels::unary_fn(p.act)(y, y, a.rows * p.w.out, p.act_alpha, p.act_beta);
}

void run_depthwise(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const DepthwiseParams*>(params);
  for_tasks(context, p.images * p.groups * p.filters * p.blocks, p.slots, [&](int64_t task, int64_t slot) {
    depthwise_task(p, io, task, reinterpret_cast<float*>(io[4]) + slot * p.slot_floats);
  });
}

/// One channel a group, and its padded rows, split by stride, are not far more than the image.
bool is_depthwise(const ConvShape& s) {
  const Window& w = s.window;
  if (s.channels != 1 || s.groups < 2 || w.rank > 2 || w.kernel_elements() > kernels::kMaxDepthwiseTaps) return false;
  const WindowDim &down = w.dim[1], &across = w.dim[2];
  const double row = static_cast<double>(kernels::depthwise_row(conv_dim(across))) * static_cast<double>(across.stride);
  const double reach = static_cast<double>((down.kernel - 1) * down.dilation + 1);
  const auto floats = [&](int64_t rows) {
    return (static_cast<double>(rows) * static_cast<double>(down.stride) + reach) * row;
  };
  const double most = std::max(static_cast<double>(1 << 20), 4 * static_cast<double>(w.in_elements()));
  return floats(std::min(down.out, kLeastDepthwiseRows)) < most && floats(down.out) < 0x1p50;
}

void lower_depthwise(LowerContext& c, const ConvShape& s) {
  const FusedActivation act = fused_activation(c);
  DepthwiseParams p{};
  p.h = conv_dim(s.window.dim[1]);
  p.w = conv_dim(s.window.dim[2]);
  p.act = act.op;
  p.act_alpha = act.alpha;
  p.act_beta = act.beta;
  p.images = s.batch;
  p.filters = s.filters;
  p.groups = s.groups;
  p.block = p.h.out;
  while (p.block > kLeastDepthwiseRows && kernels::depthwise_scratch(p.h, p.w, p.block) * 4 > kPlaneBytes)
    p.block = (p.block + 1) / 2;
  p.blocks = (p.h.out + p.block - 1) / p.block;
  p.slot_floats = (kernels::depthwise_scratch(p.h, p.w, p.block) + 15) / 16 * 16;
  const int64_t products = s.batch * s.groups * s.filters * s.window.kernel_elements() * s.window.out_elements();
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  c.step(run_depthwise, p, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}, scratch},
         static_cast<double>(products) / 12);
}

// ---- Any type -------------------------------------------------------------------------------------------------------

template <class T>
void run_generic(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& s = *static_cast<const ConvShape*>(params);
  const Window& w = s.window;
  const auto& [d0, d1, d2] = w.dim;
  const int64_t area = w.in_elements(), taps = w.kernel_elements();
  const T *bias = reinterpret_cast<const T*>(io[3]), *weights = reinterpret_cast<const T*>(io[2]);
  T* y = reinterpret_cast<T*>(io[0]);
  for (int64_t plane = 0; plane < s.batch * s.groups * s.filters; ++plane) {
    const T* x = reinterpret_cast<const T*>(io[1]) + plane / s.filters * s.channels * area;
    const int64_t filter = plane % (s.groups * s.filters);
    for (int64_t o = 0; o < w.out_elements(); ++o) {
      const auto t0 = d0.taps(o / d2.out / d1.out), t1 = d1.taps(o / d2.out % d1.out), t2 = d2.taps(o % d2.out);
      double sum = bias ? static_cast<double>(load(bias[filter])) : 0;
      for (int64_t ch = 0; ch < s.channels; ++ch) {
        const T* in = x + ch * area;
        const T* k = weights + (filter * s.channels + ch) * taps;
        for (int64_t i = t0.first; i < t0.last; ++i) {
          for (int64_t j = t1.first; j < t1.last; ++j) {
            const int64_t row = (t0.start + i * d0.dilation) * d1.in + t1.start + j * d1.dilation;
            const T* from = in + row * d2.in;
            const T* by = k + (i * d1.kernel + j) * d2.kernel;
            for (int64_t l = t2.first; l < t2.last; ++l)
              sum += static_cast<double>(load(from[t2.start + l * d2.dilation])) * static_cast<double>(load(by[l]));
          }
        }
      }
      *y++ = store<T>(static_cast<Compute<T>>(sum));
    }
  }
}

void lower_conv(LowerContext& c) {
  const ConvShape s = conv_shape(c);
  const DType dtype = c.input(0).dtype;
  if (c.output(0).shape.elements() == 0) return;
  if (dtype != DType::kF32) {
    if (c.has_attr("activation")) c.fail("an activation was fused into a convolution that is not float32");
    const auto fn = dispatch<kFloatTypes>(dtype, []<class T>() -> StepFn { return run_generic<T>; });
    c.step(fn, s, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}},
           static_cast<double>(c.output(0).shape.elements() * s.channels * s.window.kernel_elements()) * 2);
  } else if (is_depthwise(s)) {
    lower_depthwise(c, s);
  } else {
    const double packed = packed_cost(s), rows = conv_rows_cost(c, s), windows = conv_windows_cost(s);
    const auto lower = rows < std::min(packed, windows) ? lower_conv_rows
                       : windows < packed               ? lower_conv_windows
                                                        : lower_gemm_conv;
    lower(c, s);
  }
}

}  // namespace

void register_conv(OpRegistry& r) {
  const OpSchema schema{.name = "Conv", .min_inputs = 2, .max_inputs = 3, .max_outputs = 1, .infer = infer_conv};
  r.add(schema, lower_conv);
  OpSchema fused = schema;
  fused.domain = kInternal;
  r.add(fused, lower_conv);
}

}  // namespace inferkit
