// Conv in float32 or float64 by GEMM with the filters as A and the packed windows of a block of output pixels as B.
// Where a window is one pixel, B is the image: read in place, or packed as the matrix that it is.
#include "engine/ops/common/conv.h"
#include "kernels/cpu/gemm64/gemm64.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr int64_t kBlockBytes = 384 << 10;  // of packed windows: they stay in L2 beside the weights
constexpr int64_t kMinBlock = 64;           // pixels
/// Of more taps a block takes so long that it is packed and multiplied in pieces, between which it can be stopped.
constexpr int64_t kLongWindow = 1 << 18;

enum class Source : uint8_t { kInPlace, kMatrix, kWindows };  // where B comes from

void pack_windows(const kernels::PackPixelsArgs& args) { kernels::conv_kernels().pack_pixels(args); }
void pack_windows(const kernels::PackPixelsArgs64& args) { kernels::pack_pixels64(args); }

template <class T>
struct GemmConvParams {
  kernels::GemmArgsOf<T> gemm;  // m, k, lda, ldc, activation; the rest is filled in
  kernels::ConvDim dim[3];
  Source source;
  int slots;
  int64_t batch, groups, channels, in_area, out_area;
  int64_t block, blocks;  // of output pixels
  int64_t parts;          // of the filters, where threads outnumber the blocks
  int64_t slot_elements;
};

/// A panel of windows at a time, and of them some channels.
template <class T>
bool pack_in_pieces(kernels::PackPixelsArgsOf<T> pack, const GemmConvParams<T>& p, WorkMeter& meter) {
  constexpr int64_t kPanelColumns = kernels::kPanelColumnsOf<T>;
  const auto [x, to, channels, dim, pixel, count] = pack;
  const int64_t taps = p.gemm.k / channels, some = std::max<int64_t>(1, kLongWindow / taps);
  for (int64_t first = 0; first < count; first += kPanelColumns) {
    pack.first = pixel + first;
    pack.count = std::min(kPanelColumns, count - first);
    for (int64_t c = 0; c < channels; c += some) {
      pack.channels = std::min(some, channels - c);
      if (!meter.go_on(8 * pack.channels * taps)) return false;
      pack.x = x + c * p.in_area;
      pack.to = to + first * p.gemm.k + c * taps * kPanelColumns;
      pack_windows(pack);
    }
  }
  return true;
}

/// Some rows and columns at a time; each has the bits that it has in the whole.
template <class T>
void multiply_in_pieces(const kernels::GemmArgsOf<T>& whole, WorkMeter& meter) {
  constexpr int64_t kRows = 12, kColumns = 2 * kernels::kPanelColumnsOf<T>;
  for (int64_t row = 0; row < whole.m; row += kRows) {
    for (int64_t column = 0; column < whole.n; column += kColumns) {
      kernels::GemmArgsOf<T> g = whole;
      g.m = std::min(kRows, whole.m - row);
      g.n = std::min(kColumns, whole.n - column);
      g.a += row * g.lda;
      g.b += column / kernels::kPanelColumnsOf<T> * g.b_panel_stride;
      g.c += row * g.ldc + column;
      if (g.bias) g.bias += row;
      if (!meter.go_on(g.m * g.n * g.k / 32)) return;
      kernels::GemmOf<T>::one(g);
    }
  }
}

template <class T>
void gemm_task(const GemmConvParams<T>& p, std::byte* const* io, int64_t task, int64_t parts, T* scratch) {
  const int64_t part = task % parts, block = task / parts % p.blocks, image = task / parts / p.blocks;  // and group
  const int64_t group = image % p.groups, filters = p.gemm.m;
  // Whole panels, as many in every block as can be.
  constexpr int64_t kPanelColumns = kernels::kPanelColumnsOf<T>;
  const int64_t panels = (p.out_area + kPanelColumns - 1) / kPanelColumns;
  const int64_t pixel = panels * block / p.blocks * kPanelColumns;
  const int64_t count = std::min(p.out_area, panels * (block + 1) / p.blocks * kPanelColumns) - pixel;
  const int64_t row = filters * part / parts, rows = filters * (part + 1) / parts - row;
  const T* x = reinterpret_cast<const T*>(io[1]) + image * p.channels * p.in_area;
  kernels::GemmArgsOf<T> g = p.gemm;
  g.m = rows;
  g.n = count;
  g.a = reinterpret_cast<const T*>(io[2]) + (group * filters + row) * g.k;
  g.c = reinterpret_cast<T*>(io[0]) + (image * filters + row) * p.out_area + pixel;
  if (io[3]) {
    g.bias = reinterpret_cast<const T*>(io[3]) + group * filters + row;
    g.bias_kind = kernels::BiasKind::kPerRow;
  }
  if (p.source == Source::kInPlace) {
    g.b = x + pixel;
    g.b_k_stride = p.in_area;
    g.b_panel_stride = kernels::kPanelColumnsOf<T>;
    return kernels::GemmOf<T>::one(g);
  }
  if (p.source == Source::kMatrix) {
    kernels::pack_b(x + pixel, p.in_area, g.k, count, scratch);
  } else {
    kernels::PackPixelsArgsOf<T> pack;
    pack.x = x;
    pack.to = scratch;
    pack.channels = p.channels;
    for (int d = 0; d < 3; ++d) pack.dim[d] = p.dim[d];
    pack.first = pixel;
    pack.count = count;
    if (g.k > kLongWindow) {
      WorkMeter meter;
      if (!pack_in_pieces(pack, p, meter)) return;
      kernels::use_packed_b(g, scratch);
      return multiply_in_pieces(g, meter);
    }
    pack_windows(pack);
  }
  kernels::use_packed_b(g, scratch);
  kernels::GemmOf<T>::one(g);
}

/// io: y, x, weights, bias, scratch.
template <class T>
void run_gemm(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const GemmConvParams<T>*>(params);
  const bool alone = !context.pool || context.max_threads < 2;
  const int64_t parts = alone ? 1 : p.parts;
  for_tasks(context, p.batch * p.groups * p.blocks * parts, p.slots, [&](int64_t task, int64_t slot) {
    gemm_task(p, io, task, parts, reinterpret_cast<T*>(io[4]) + slot * p.slot_elements);
  });
}

/// Of packing one image and group: for each panel of windows the sources of its taps, and a vector for each row of it.
/// Where a line of the output is shorter than a panel, a row is put together from as many lines as the panel covers.
template <class T>
double packing_nanos(const GemmConvParams<T>& p) {
  constexpr int64_t kPanelColumns = kernels::kPanelColumnsOf<T>;
  const auto pixels = static_cast<double>(p.out_area), depth = static_cast<double>(p.gemm.k);
  if (p.source == Source::kInPlace) return 0;
  if (p.source == Source::kMatrix) return pixels * depth / 8;
  const double lines = 1 + (kPanelColumns - 1) / std::max(1.0, static_cast<double>(p.dim[2].out));
  const double taps = depth / std::max(1.0, static_cast<double>(p.channels));
  return pixels / kPanelColumns * lines * (2 * depth + 5 * taps);
}

/// An activation is fused into float32 alone.
template <class T>
void lower_packed(LowerContext& c) {
  constexpr int64_t kPanelColumns = kernels::kPanelColumnsOf<T>;
  const ConvShape s = conv_shape(c);
  const Window& w = s.window;
  const FusedActivation act = fused_activation(c);
  GemmConvParams<T> p{};
  p.gemm.m = s.filters;
  p.gemm.k = p.gemm.lda = s.window_elements();
  p.gemm.ldc = p.out_area = w.out_elements();
  p.gemm.act = act.op;
  p.gemm.act_alpha = act.alpha;
  p.gemm.act_beta = act.beta;
  p.gemm.k_chunk = kernels::GemmOf<T>::chunk(kernels::sum_chunk(p.gemm.k));
  p.batch = s.batch;
  p.groups = s.groups;
  p.channels = s.channels;
  p.in_area = w.in_elements();
  for (size_t d = 0; d < 3; ++d) p.dim[d] = conv_dim(w.dim[d]);
  move_in(p.dim);
  p.source = !s.pointwise() ? Source::kWindows : p.out_area % kPanelColumns == 0 ? Source::kInPlace : Source::kMatrix;
  const auto round = [](int64_t n) { return (n + kPanelColumns - 1) / kPanelColumns * kPanelColumns; };
  const double products = multiplied(s.batch, s.groups, s.filters, p.gemm.k, p.out_area);
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  const int64_t fit = kBlockBytes / (static_cast<int64_t>(sizeof(T)) * std::max<int64_t>(1, p.gemm.k)) / 16 * 16;
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
    p.slot_elements = round(p.block) * p.gemm.k + 16;
    scratch = c.scratch(static_cast<size_t>(p.slot_elements * p.slots) * sizeof(T));
  }
  c.step(run_gemm<T>, p, {c.out(0), c.in(0), c.in(1), c.has_input(2) ? c.in(2) : Ref{}, scratch},
         products / 30 + packing_nanos(p) * static_cast<double>(images));
}

}  // namespace

Cost conv_packed_cost(const NodeContext& c) {
  const ConvShape s = conv_shape(c);
  if (c.input(0).dtype != DType::kF32 && c.input(0).dtype != DType::kF64) {
    return Cost::cannot("it is for float32 and float64");
  }
  if (c.input(0).dtype == DType::kF64 && conv_plain_in_double(s)) {
    return Cost::cannot(
        "plain sums are faster than packing: a channel a group and few filters, or windows of more than 2^17");
  }
  const int64_t stride = s.window.dim[2].stride;
  const int64_t packing = s.pointwise() ? 0 : stride == 1 ? 10 : stride == 2 ? 18 : 50;  // of a vector, as measured
  const int64_t panels = (s.window.out_elements() + kernels::kPanelColumns - 1) / kernels::kPanelColumns;
  return conv_cost(s, static_cast<double>(panels) * static_cast<double>(s.window_elements()) *
                          static_cast<double>(s.filters + packing));
}

void lower_conv_packed(LowerContext& c) {
  if (c.input(0).dtype == DType::kF32) return lower_packed<float>(c);
  if (c.has_attr("activation")) c.fail("an activation was fused into a convolution that is not float32");
  lower_packed<double>(c);
}

}  // namespace inferkit
