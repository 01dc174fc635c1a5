// Scales and zero points: how they lie over a tensor, and their reading as float.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/small_types.h"
#include "engine/compile/lower.h"
#include "engine/ops/dispatch.h"

namespace inferkit {

inline constexpr TypeSet kByteTypes = types(DType::kU8, DType::kI8);
inline constexpr TypeSet kScaleTypes = types(DType::kF32, DType::kF16, DType::kBF16);

/// left * right / of_result, also where left * right is too small or too large for a float by itself.
inline float requantizing_factor(float left, float right, float of_result) {
  const float product = left * right;
  if (std::isnormal(product)) return product / of_result;
  return static_cast<float>(double{left} * double{right} / double{of_result});
}

/// A tensor as [outer, axis, inner], and which scale each element has: one for all, one per index of the axis, or one
/// per block of the axis.
struct ScaleLayout {
  int64_t outer = 1, axis = 1, inner = 1;
  int64_t block = 1;                                            // neighbours along the axis that share a scale
  int64_t outer_stride = 0, axis_stride = 0, inner_stride = 0;  // into the scales

  int64_t elements() const { return outer * axis * inner; }
  /// Neighbours that for_scale_runs takes together: along `inner`; where that is 1, along a block, or the whole axis.
  int64_t run() const { return inner != 1 ? inner : block > 1 ? block : axis; }
};

/// f(i, n, s, stride) for runs of the elements [first, last), in order: element i + k has scale s + k * stride, for k <
/// n. The stride is 0 or 1.
template <class F>
void for_scale_runs(const ScaleLayout& l, int64_t first, int64_t last, F&& f) {
  if (first >= last) return;
  const bool one = l.inner == 1;
  const int64_t run = l.run(), row = l.axis * l.inner;
  const int64_t stride = !one ? l.inner_stride : l.block > 1 ? 0 : l.axis_stride;
  const int64_t per_step = one ? 1 : l.block;  // runs along a row that share the scales
  int64_t o = first / row, at = first % row, k = at / run, in_run = at % run;
  for (int64_t i = first; i < last;) {
    const int64_t n = std::min({run - in_run, row - at, last - i});
    const int64_t step = per_step == 1 ? k : k / per_step;
    f(i, n, o * l.outer_stride + step * l.axis_stride + in_run * stride, stride);
    i += n, at += n, ++k, in_run = 0;
    if (at == row) at = 0, k = 0, ++o;
  }
}

/// From the attributes axis and block_size, for input 0 with the scales of input 1.
ScaleLayout scale_layout(const NodeContext& c);
/// The attribute block_size; 0: none.
int64_t block_size(const NodeContext& c);

/// The value that ONNX's TensorProto.DataType gives to an attribute; refuses what there is no type for.
DType attr_dtype(const NodeContext& c, int64_t code);

/// Input `i`, a floating type of kScaleTypes, as float: itself, or a step that widens it.
Ref scales_as_float(LowerContext& c, size_t i);

/// Rounds half to even, adds the zero point and saturates. NaN gives the least value.
template <class Y, class C>
Y saturate(C scaled, int32_t zero,
           SmallRange range = {std::numeric_limits<Y>::lowest(), std::numeric_limits<Y>::max()}) {
  const auto low = static_cast<C>(range.lowest), high = static_cast<C>(range.highest);
  const C v = std::rint(scaled) + static_cast<C>(zero);
  return static_cast<Y>(v > low ? (v < high ? v : high) : low);
}

}  // namespace inferkit
