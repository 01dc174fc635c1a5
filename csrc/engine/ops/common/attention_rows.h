// From scores to weights, a row at a time: what every way to compute attention shares.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/ops/common/attention.h"
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath.h"

namespace inferkit {

inline void softmax_scores(float* x, int64_t n, float scale, const float* bias) {
  kernels::softmax_row(x, x, n, scale, bias);
}
inline void softmax_scores(double* x, int64_t n, double scale, const double* bias) {
  if (scale != 1 || bias) {
    for (int64_t i = 0; i < n; ++i) x[i] = scale * x[i] + (bias ? bias[i] : 0);
  }
  kernels::row_kernels().softmax64(x, x, n);
}

inline void cap_scores(float* x, int64_t n, float limit) {
  for (int64_t i = 0; i < n; ++i) x[i] /= limit;
  kernels::unary_fn(kernels::Unary::kTanh)(x, x, n, 0, 0);
  for (int64_t i = 0; i < n; ++i) x[i] *= limit;
}
inline void cap_scores(double* x, int64_t n, double limit) {
  for (int64_t i = 0; i < n; ++i) x[i] = limit * std::tanh(x[i] / limit);
}

/// The rows of one batch entry.
template <class W>
class ScoreRows {
 public:
  /// `lengths` may be null.
  ScoreRows(const AttentionParams& params, const int64_t* lengths, int64_t b)
      : p(params),
        length(lengths ? std::clamp<int64_t>(lengths[b], 0, p.keys) : p.keys),
        offset(p.offset_from_lengths && lengths ? length - p.rows : p.offset) {}

  /// The keys that a row sees.
  int64_t begin(int64_t row) const { return p.left < 0 ? 0 : std::clamp<int64_t>(offset + row - p.left, 0, length); }
  int64_t end(int64_t row) const {
    return p.right < 0 ? length : std::clamp<int64_t>(offset + row + p.right + 1, 0, length);
  }

  /// Scores of one query become weights; `kept` gets a copy at its stage.
  void weights(W* x, int64_t width, int64_t i, W sink, const W* bias, W* kept) const {
    const int64_t low = std::min(begin(i), end(i)), high = end(i);
    W scale = static_cast<W>(p.scale);
    const auto keep = [&](ScoreStage stage) {
      if (kept && p.stage == stage) std::copy(x, x + width, kept);
    };
    if (kept || p.softcap > 0) {
      for (int64_t j = 0; j < width; ++j) x[j] *= scale;
      scale = 1;
      keep(ScoreStage::kScaled);
      if (p.softcap > 0) cap_scores(x, width, static_cast<W>(p.softcap));
      keep(ScoreStage::kCapped);
    }
    if (kept && p.stage == ScoreStage::kBiased) {
      for (int64_t j = 0; j < width; ++j) {
        kept[j] = j < low || j >= high ? -std::numeric_limits<W>::infinity() : bias ? x[j] + bias[j] : x[j];
      }
    }
    std::fill(x, x + low, W(0));
    std::fill(x + high, x + width, W(0));
    if (p.smooth) {
      smooth(x + low, high - low, scale, bias ? bias + low : nullptr, sink);
    } else if (low < high) {
      softmax_scores(x + low, high - low, scale, bias ? bias + low : nullptr);
      // NaN: a value is, or all keys are masked.
      if (x[low] != x[low] && masked(bias, low, high)) std::fill(x + low, x + high, W(0));
    }
    keep(ScoreStage::kSoftmax);
  }

 private:
  /// Softmax of n scores and the sink, whose weight nobody gets. It stands behind them meanwhile, where something of
  /// another row may lie.
  static void smooth(W* x, int64_t n, W scale, const W* bias, W sink) {
    for (int64_t j = 0; j < n; ++j) x[j] = scale * x[j] + (bias ? bias[j] : W(0));
    const W behind = x[n];
    x[n] = sink;
    softmax_scores(x, n + 1, W(1), static_cast<const W*>(nullptr));
    x[n] = behind;
  }

  static bool masked(const W* bias, int64_t low, int64_t high) {
    return bias && std::all_of(bias + low, bias + high, [](W v) { return v == -std::numeric_limits<W>::infinity(); });
  }

  const AttentionParams& p;
  const int64_t length, offset;
};

}  // namespace inferkit
