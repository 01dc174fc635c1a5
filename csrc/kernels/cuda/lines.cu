#include "kernels/cuda/functions.h"
#include "kernels/cuda/lines.h"
#include "kernels/cuda/platform.h"

namespace inferkit::kernels::cuda {
namespace {

INFERKIT_DEVICE float sum_of(float a, float b) { return a + b; }
INFERKIT_DEVICE float product_of(float a, float b) { return a * b; }
template <class T>
INFERKIT_DEVICE T sum_of(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
}
template <class T>
INFERKIT_DEVICE T product_of(T a, T b) {
  return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}

template <class T>
INFERKIT_DEVICE void cumulate_line(const CumulateParams& p, int64_t at, int64_t step) {
  T total = p.product ? T{1} : T{0};
  for (int64_t j = 0; j < p.n; ++j, at += step) {
    const T x = static_cast<const T*>(p.x)[at];
    const T next = j == 0 ? x : p.product ? product_of(total, x) : sum_of(total, x);
    static_cast<T*>(p.y)[at] = p.exclusive ? total : next;
    total = next;
  }
}

}  // namespace

INFERKIT_KERNEL(cumulate, CumulateParams, 256, 4) {
  for (int64_t i = first_element(); i < p.outer * p.inner; i += element_step()) {
    const int64_t first = i / p.inner * p.n * p.inner + i % p.inner;
    const int64_t at = p.reverse ? first + (p.n - 1) * p.inner : first, step = p.reverse ? -p.inner : p.inner;
    if (p.type == Element::kF32) {
      cumulate_line<float>(p, at, step);
    } else if (p.type == Element::kI64) {
      cumulate_line<int64_t>(p, at, step);
    } else {
      cumulate_line<int32_t>(p, at, step);
    }
  }
}

namespace {

template <class T>
INFERKIT_DEVICE void replace(void* y, int64_t to, const void* updates, int64_t from) {
  static_cast<T*>(y)[to] = static_cast<const T*>(updates)[from];
}
template <class T>
INFERKIT_DEVICE void combine(Scatter op, void* y, int64_t to, const void* updates, int64_t from) {
  T& v = static_cast<T*>(y)[to];
  const T update = static_cast<const T*>(updates)[from];
  v = op == Scatter::kAdd ? sum_of(v, update) : product_of(v, update);
}

INFERKIT_DEVICE void scatter_one(const ScatterParams& p, int64_t to, int64_t from) {
  if (p.op != Scatter::kReplace) {
    if (p.type == Element::kF32) return combine<float>(p.op, p.y, to, p.updates, from);
    if (p.type == Element::kI64) return combine<int64_t>(p.op, p.y, to, p.updates, from);
    return combine<int32_t>(p.op, p.y, to, p.updates, from);
  }
  if (p.width == 4) return replace<uint32_t>(p.y, to, p.updates, from);
  if (p.width == 8) return replace<uint64_t>(p.y, to, p.updates, from);
  if (p.width == 2) return replace<uint16_t>(p.y, to, p.updates, from);
  return replace<uint8_t>(p.y, to, p.updates, from);
}

}  // namespace

INFERKIT_KERNEL(scatter_lines, ScatterParams, 256, 4) {
  for (int64_t i = first_element(); i < p.lines.n; i += element_step()) {
    int64_t at[2];
    offsets_of(p.lines, i, at);
    for (int64_t j = 0, from = at[1]; j < p.n; ++j, from += p.update_stride) {
      int64_t index = p.wide ? static_cast<const int64_t*>(p.indices)[from]  //
                             : static_cast<const int32_t*>(p.indices)[from];
      if (index < 0) index += p.dim;
      if (index >= 0 && index < p.dim) {
        scatter_one(p, at[0] + index * p.axis_stride, from);
      } else if (*p.fault == 0) {
        *p.fault = p.step + 1;
      }
    }
  }
}

INFERKIT_KERNEL(one_hot, OneHotParams, 256, 4) {
  for (int64_t i = first_element(); i < p.outer * p.depth * p.inner; i += element_step()) {
    const int64_t place = i / p.inner % p.depth, from = i / p.inner / p.depth * p.inner + i % p.inner;
    int64_t index = 0;
    if (p.type == Element::kF32) {
      const double v = static_cast<double>(static_cast<const float*>(p.indices)[from]);
      const double depth = static_cast<double>(p.depth);
      index = v >= -depth && v < depth ? static_cast<int64_t>(v) : INT64_MAX;  // of NaN, nowhere
    } else {
      index = p.type == Element::kI64 ? static_cast<const int64_t*>(p.indices)[from]
                                      : static_cast<const int32_t*>(p.indices)[from];
    }
    const bool on = (index < 0 ? index + p.depth : index) == place;
    if (p.width == 4) {
      replace<uint32_t>(p.y, i, p.values, on);
    } else if (p.width == 8) {
      replace<uint64_t>(p.y, i, p.values, on);
    } else if (p.width == 2) {
      replace<uint16_t>(p.y, i, p.values, on);
    } else {
      replace<uint8_t>(p.y, i, p.values, on);
    }
  }
}

INFERKIT_KERNEL(scale_by_neighbours, NeighboursParams, 256, 4) {
  const int64_t n = p.batch * p.channels * p.area;
  for (int64_t i = first_element(); i < n; i += element_step()) {
    const int64_t channel = i / p.area % p.channels;
    const int64_t below = (p.size - 1) / 2, above = p.size / 2;
    const int64_t first = channel < below ? 0 : channel - below;
    const int64_t last = above < p.channels - channel ? channel + above + 1 : p.channels;
    float sum = 0;
    for (int64_t from = first; from < last; from += p.chunk) {
      float part = 0;
      for (int64_t k = from; k < last && k < from + p.chunk; ++k) {
        const float v = p.x[i + (k - channel) * p.area];
        part = __fadd_rn(part, __fmul_rn(v, v));
      }
      sum = from == first ? part : __fadd_rn(sum, part);
    }
    const float base = __fadd_rn(__fmul_rn(sum, p.factor), p.bias);
    const float log = apply_unary(Unary::kLog, base, 0, 0);
    p.y[i] = __fmul_rn(p.x[i], apply_unary(Unary::kExp, __fmul_rn(log, p.power), 0, 0));
  }
}

}  // namespace inferkit::kernels::cuda
