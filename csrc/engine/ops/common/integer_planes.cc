// ConvInteger and QLinearConv with one channel a group: in float32, which holds their sums, by its depthwise kernel.
#include <algorithm>

#include "engine/ops/common/conv.h"
#include "engine/ops/common/integer_conv.h"
#include "engine/ops/common/quantization.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/quantize/quantize.h"

namespace inferkit {
namespace {

constexpr int64_t kPlaneBytes = 64 << 10;  // of a plane's padded rows
constexpr int64_t kTogetherFloats = 4096;  // of images and sums that stay in a first cache

struct PlanesParams {
  kernels::ConvDim h, w;
  int64_t planes, filters;  // of the output, and of each image
  int64_t in_group;         // filters
  int64_t zero_stride;      // of the weights' zero point over the filters
  int64_t block;            // of output rows
  int64_t together;         // planes that go through each stage one after the other
  int64_t in_floats, out_floats, taps_floats, slot_floats;
  int64_t whole_at;  // where in a slot there is room for sums as int32, for bytes
  int slots;
  bool ready;  // w are the floats of ready_weights
  PlanesGive give;
  int64_t scale_stride;  // of the weights' scale over the filters
};

void to_whole(const float* sums, int32_t* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<int32_t>(sums[i]);
}

/// Whole numbers up to this are floats.
constexpr int32_t kExact = 1 << 24;

/// Bytes of the sums of one filter, as lower_requantize makes them. io: the scales of x, w and y, the zero point of y,
/// the bias or null. `room` is for as many sums.
template <class Y>
void give_bytes(const PlanesParams& p, std::byte* const* io, int64_t filter, const float* sums, int32_t* room,
                int64_t n, Y* y) {
  const auto scale = [&](int i, int64_t at) { return reinterpret_cast<const float*>(io[i])[at]; };
  const float factor = requantizing_factor(scale(0, 0), scale(1, filter * p.scale_stride), scale(2, 0));
  const int32_t bias = io[4] ? reinterpret_cast<const int32_t*>(io[4])[filter] : 0;
  const int32_t zero = io[3] ? int32_t{*reinterpret_cast<const Y*>(io[3])} : 0;
  const auto& kernels = kernels::quantize_kernels().bytes<Y>();
  if (bias >= -kExact && bias <= kExact) {
    return kernels.requantize_whole(sums, y, n, factor, static_cast<float>(bias), zero);
  }
  to_whole(sums, room, n);
  kernels.requantize(room, y, n, factor, bias, zero);
}

/// The weights of one filter, less their zero point.
template <class W>
void whole_weights(const W* w, const W* zero, int64_t zero_stride, int64_t filter, int64_t taps, float* to) {
  kernels::quantize_kernels().bytes<W>().dequantize(w + filter * taps, to, taps, 1.0f,
                                                    zero ? int32_t{zero[filter * zero_stride]} : 0);
}

/// Those of all filters, once for each model; invalid where a run may bring others.
Ref ready_weights(LowerContext& c, const PlanesParams& p, const ConvOperands& at) {
  const Tensor* const w = c.input(at.w).constant;
  const Tensor* const zero = c.has_input(at.w_zero) ? c.input(at.w_zero).constant : nullptr;
  if (!w || (c.has_input(at.w_zero) && !zero)) return {};
  const int64_t taps = p.h.kernel * p.w.kernel;
  const Packing packing{"integer-planes", DType::kF32, p.filters * taps, {}};
  const auto fill = [&](void* to) {
    dispatch<kByteTypes>(w->dtype, [&]<class W>() {
      for (int64_t f = 0; f < p.filters; ++f) {
        whole_weights(w->as<W>(), zero ? zero->as<W>() : nullptr, p.zero_stride, f, taps,
                      static_cast<float*>(to) + f * taps);
      }
      return 0;
    });
  };
  return zero ? c.packed({w, zero}, packing, fill) : c.packed({w}, packing, fill);
}

/// io: the sums or bytes, x, w, their zero points or null, scratch; then what give_bytes wants.
template <class X, class W>
void planes_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const PlanesParams*>(params);
  const int32_t x_zero = io[3] ? int32_t{*reinterpret_cast<const X*>(io[3])} : 0;
  const auto* w_zero = reinterpret_cast<const W*>(io[4]);
  const int64_t in = p.h.in * p.w.in, out = p.h.out * p.w.out, taps = p.h.kernel * p.w.kernel;
  for_tasks(context, (p.planes + p.together - 1) / p.together, p.slots, [&](int64_t task, int64_t slot) {
    const int64_t first = task * p.together, last = std::min(p.planes, first + p.together);
    auto* const images = reinterpret_cast<float*>(io[5]) + slot * p.slot_floats;
    float* const sums = images + p.in_floats;
    float* const weights = sums + p.out_floats;
    // What was just written in other pieces than it is read in waits for the memory: so plane after plane each time.
    const int64_t channel = first / p.in_group, channels = (last - 1) / p.in_group + 1 - channel;
    const X* x = reinterpret_cast<const X*>(io[1]) + channel * in;
    kernels::quantize_kernels().bytes<X>().dequantize(x, images, channels * in, 1.0f, x_zero);
    for (int64_t plane = first; plane < last; ++plane) {
      const int64_t filter = plane % p.filters;
      kernels::DepthwiseArgs a;
      a.x = images + (plane / p.in_group - channel) * in;
      a.y = sums + (plane - first) * out;
      a.weights = p.ready ? reinterpret_cast<const float*>(io[2]) + filter * taps : weights;
      if (!p.ready) whole_weights(reinterpret_cast<const W*>(io[2]), w_zero, p.zero_stride, filter, taps, weights);
      a.h = p.h;
      a.w = p.w;
      a.scratch = weights + p.taps_floats;
      for (a.first = 0; a.first < p.h.out; a.first += p.block) {
        a.rows = std::min(p.block, p.h.out - a.first);
        kernels::conv_kernels().depthwise(a);
      }
    }
    auto* const room = reinterpret_cast<int32_t*>(images + p.whole_at);
    if (p.give == PlanesGive::kSums) {
      return to_whole(sums, reinterpret_cast<int32_t*>(io[0]) + first * out, (last - first) * out);
    }
    for (int64_t plane = first; plane < last; ++plane) {
      const float* from = sums + (plane - first) * out;
      const int64_t filter = plane % p.filters;
      if (p.give == PlanesGive::kU8) {
        give_bytes(p, io + 6, filter, from, room, out, reinterpret_cast<uint8_t*>(io[0]) + plane * out);
      } else {
        give_bytes(p, io + 6, filter, from, room, out, reinterpret_cast<int8_t*>(io[0]) + plane * out);
      }
    }
  });
}

/// One channel a group, and windows that the kernel is for.
bool is_depthwise(const IntegerConv& p) {
  constexpr int64_t kLargestProduct = 255 * 255;
  static_assert(kernels::kMaxDepthwiseTaps * kLargestProduct < kExact);
  const Window& w = p.window;
  if (p.channels != 1 || p.groups < 2 || w.rank > 2 || w.kernel_elements() > kernels::kMaxDepthwiseTaps) return false;
  const double floats = static_cast<double>(kernels::depthwise_row(conv_dim(w.dim[2]))) *
                        static_cast<double>(w.dim[2].stride) *
                        static_cast<double>((w.dim[1].kernel - 1) * w.dim[1].dilation + w.dim[1].stride);
  return floats + static_cast<double>(w.in_elements() + w.out_elements()) < 1 << 22;
}

/// Beside those of the other ways, which take several times as long as they are said to.
double planes_nanos(const IntegerConv& p) {
  const double outputs = multiplied(p.batch, p.groups, p.filters);
  const double copied = static_cast<double>(p.window.in_elements() + 2 * p.window.out_elements());
  return outputs * (copied / 32 + multiplied(p.window.out_elements(), p.window.kernel_elements()) / 96 + 10);
}

}  // namespace

Cost integer_planes_cost(const IntegerConv& p) {
  if (!is_depthwise(p)) return Cost::cannot("not one channel a group, or a window that its kernel is not for");
  return Cost(planes_nanos(p));
}

void lower_integer_planes(LowerContext& c, const IntegerConv& conv, Ref out, const ConvOperands& at, PlanesGive give,
                          int64_t scale_stride) {
  const auto rounded = [](int64_t floats) { return (floats + 15) / 16 * 16; };
  PlanesParams p{};
  p.h = conv_dim(conv.window.dim[1]);
  p.w = conv_dim(conv.window.dim[2]);
  p.give = give;
  p.scale_stride = scale_stride;
  p.filters = conv.groups * conv.filters;
  p.planes = conv.batch * p.filters;
  p.in_group = conv.filters;
  p.zero_stride = conv.zero_stride;
  p.block = p.h.out;
  while (p.block > 4 && kernels::depthwise_scratch(p.h, p.w, p.block) * 4 > kPlaneBytes) p.block = (p.block + 1) / 2;
  p.together = std::clamp<int64_t>(kTogetherFloats / std::max<int64_t>(p.h.in * p.w.in + p.h.out * p.w.out, 1), 1, 8);
  p.in_floats = rounded(p.h.in * p.w.in * p.together);
  p.out_floats = rounded(p.h.out * p.w.out * p.together);
  p.taps_floats = rounded(p.h.kernel * p.w.kernel);
  p.whole_at = p.in_floats + p.out_floats + p.taps_floats + rounded(kernels::depthwise_scratch(p.h, p.w, p.block));
  p.slot_floats = p.whole_at + (give == PlanesGive::kSums ? 0 : rounded(p.h.out * p.w.out));
  const double products = multiplied(p.planes, p.h.kernel, p.w.kernel, p.h.out, p.w.out);
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  const StepFn fn = dispatch<kByteTypes>(c.input(at.x).dtype, [&]<class X>() -> StepFn {
    return dispatch<kByteTypes>(c.input(at.w).dtype, []<class W>() -> StepFn { return planes_step<X, W>; });
  });
  const Ref ready = ready_weights(c, p, at);
  p.ready = ready.valid();
  const auto zero = [&](size_t i) { return c.has_input(i) ? c.in(i) : Ref{}; };
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_floats * p.slots) * sizeof(float));
  const auto taken = [&](size_t i) { return give == PlanesGive::kSums ? Ref{} : zero(i); };
  c.step(fn, p,
         {out, c.in(at.x), p.ready ? ready : c.in(at.w), zero(at.x_zero), zero(at.w_zero), scratch, taken(1), taken(4),
          taken(6), taken(7), taken(8)},
         planes_nanos(conv));
}

}  // namespace inferkit
