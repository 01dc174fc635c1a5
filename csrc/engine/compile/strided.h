// Loop nests over strided operands: broadcasting, slicing, transposing. The nest is collapsed when the plan is
// compiled, so that a step walks as few and as long inner loops as the strides allow.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/shape.h"
#include "platform/run_control.h"

namespace inferkit {

using Strides = std::array<int64_t, Shape::kMaxRank>;

/// `dims` and, for each of N operands, strides in elements. Trivially copyable: it goes into a step's params. rank >=
/// 1; the last dimension is the inner loop.
template <size_t N>
struct LoopNest {
  int32_t rank = 1;
  std::array<int64_t, Shape::kMaxRank> dims{1};
  std::array<Strides, N> strides{};

  int64_t inner() const { return dims[static_cast<size_t>(rank - 1)]; }
  int64_t inner_stride(size_t operand) const { return strides[operand][static_cast<size_t>(rank - 1)]; }
  /// Of the last dimension but one; 0 where there is none.
  int64_t row_stride(size_t operand) const { return rank < 2 ? 0 : strides[operand][static_cast<size_t>(rank - 2)]; }
  /// How many inner loops there are.
  int64_t runs() const {
    int64_t n = 1;
    for (int32_t i = 0; i + 1 < rank; ++i) n *= dims[static_cast<size_t>(i)];
    return n;
  }
  int64_t elements() const { return runs() * inner(); }
};

/// The strides with which an operand of shape `from` is read to fill `to`, to which it must broadcast: 0 where it
/// repeats.
inline Strides broadcast_strides(const Shape& from, const Shape& to) {
  Strides out{};
  const Strides own = from.strides();
  const size_t lead = to.rank() - from.rank();
  for (size_t i = 0; i < from.rank(); ++i) out[lead + i] = from[i] == 1 ? 0 : own[i];
  return out;
}

/// Whether an operand of shape `from`, which broadcasts to a tensor that ends in `to`, holds each element of `to` once,
/// so that it can be read as it lies.
inline bool repeats_nothing(const Shape& from, const Shape& to) {
  const size_t lead = from.rank() > to.rank() ? from.rank() - to.rank() : 0;
  return from.elements(0, lead) == 1 && from.elements() == to.elements();
}

/// Drops dimensions of 1 and merges neighbours that all operands walk as one.
template <size_t N>
LoopNest<N> make_nest(const Shape& shape, const std::array<Strides, N>& strides) {
  LoopNest<N> nest;
  size_t rank = 0;
  for (size_t i = 0; i < shape.rank(); ++i) {
    if (shape[i] == 1) continue;
    bool merge = rank > 0;
    for (size_t n = 0; n < N && merge; ++n) merge = nest.strides[n][rank - 1] == strides[n][i] * shape[i];
    if (!merge) ++rank;
    nest.dims[rank - 1] = merge ? nest.dims[rank - 1] * shape[i] : shape[i];
    for (size_t n = 0; n < N; ++n) nest.strides[n][rank - 1] = strides[n][i];
  }
  if (rank == 0) rank = 1;  // a scalar: one inner loop of one element, strides 0
  nest.rank = static_cast<int32_t>(rank);
  return nest;
}

/// Calls f(offsets, run) for inner loops number [first, last), in order; `offsets` are those of each operand's first
/// element. f handles nest.inner() elements at nest.inner_stride(n).
template <size_t N, class F>
void for_each_run(const LoopNest<N>& nest, int64_t first, int64_t last, F&& f) {
  if (first >= last || nest.inner() == 0) return;
  const int outer = nest.rank - 1;
  std::array<int64_t, Shape::kMaxRank> index{};
  std::array<int64_t, N> offsets{};
  int64_t rest = first;
  for (int d = outer - 1; d >= 0; --d) {
    const auto i = static_cast<size_t>(d);
    index[i] = rest % nest.dims[i];
    rest /= nest.dims[i];
    for (size_t n = 0; n < N; ++n) offsets[n] += index[i] * nest.strides[n][i];
  }
  for (int64_t run = first;;) {
    f(offsets, run);
    if (++run == last) return;
    for (int d = outer - 1; d >= 0; --d) {
      const auto i = static_cast<size_t>(d);
      for (size_t n = 0; n < N; ++n) offsets[n] += nest.strides[n][i];
      if (++index[i] < nest.dims[i]) break;
      index[i] = 0;
      for (size_t n = 0; n < N; ++n) offsets[n] -= nest.dims[i] * nest.strides[n][i];
    }
  }
}

template <size_t N, class F>
void for_each_run(const LoopNest<N>& nest, F&& f) {
  for_each_run(nest, 0, nest.runs(), static_cast<F&&>(f));
}

/// Calls f(offsets, rows) for the same inner loops, as many at once as are neighbours along the last dimension but one:
/// f goes from one to the next by nest.row_stride(n).
template <size_t N, class F>
void for_each_rows(const LoopNest<N>& nest, int64_t first, int64_t last, F&& f) {
  if (first >= last || nest.inner() == 0) return;
  const int outer = nest.rank - 1;
  std::array<int64_t, Shape::kMaxRank> index{};
  std::array<int64_t, N> offsets{};
  if (outer == 0) return f(offsets, int64_t{1});
  int64_t rest = first;
  for (int d = outer - 1; d >= 0; --d) {
    const auto i = static_cast<size_t>(d);
    index[i] = rest % nest.dims[i];
    rest /= nest.dims[i];
    for (size_t n = 0; n < N; ++n) offsets[n] += index[i] * nest.strides[n][i];
  }
  const auto row = static_cast<size_t>(outer - 1);
  for (int64_t run = first;;) {
    const int64_t rows = std::min(last - run, nest.dims[row] - index[row]);
    f(offsets, rows);
    run += rows;
    if (run == last) return;
    for (size_t n = 0; n < N; ++n) offsets[n] -= index[row] * nest.strides[n][row];
    index[row] = 0;
    for (int d = outer - 2; d >= 0; --d) {
      const auto i = static_cast<size_t>(d);
      for (size_t n = 0; n < N; ++n) offsets[n] += nest.strides[n][i];
      if (++index[i] < nest.dims[i]) break;
      index[i] = 0;
      for (size_t n = 0; n < N; ++n) offsets[n] -= nest.dims[i] * nest.strides[n][i];
    }
  }
}

/// Calls f(offsets, n) for pieces of n elements of the inner loops, of about `nanos` each, in order: whole loops where
/// they are short. Between them the work may be left.
template <size_t N, class F>
void for_each_piece(const LoopNest<N>& nest, F&& f, int64_t nanos = 1) {
  const int64_t inner = nest.inner();
  WorkMeter meter;
  const bool cut = meter && inner * nanos > WorkMeter::kBlockNanos;
  const int64_t most = cut ? std::max<int64_t>(1, WorkMeter::kBlockNanos / nanos) : inner;
  for_blocks(meter, 0, nest.runs(), cut ? 1 : std::max<int64_t>(1, inner * nanos), [&](int64_t first, int64_t last) {
    for_each_run(nest, first, last, [&](std::array<int64_t, N> at, int64_t) {
      for (int64_t left = inner;;) {  // f stands here alone, or it would be compiled twice
        const int64_t n = std::min(left, most);
        if (cut && !meter.go_on(n * nanos)) return;
        f(at, n);
        if ((left -= n) == 0) return;
        for (size_t k = 0; k < N; ++k) at[k] += n * nest.inner_stride(k);
      }
    });
  });
}

/// The same with f(offsets, rows, n) for rows of n elements, nest.row_stride(n) apart: for an f that is a call.
template <size_t N, class F>
void for_each_block(const LoopNest<N>& nest, F&& f, int64_t nanos = 1) {
  const int64_t inner = nest.inner();
  WorkMeter meter;
  if (meter && inner * nanos > WorkMeter::kBlockNanos) {
    return for_each_piece(nest, [&](const std::array<int64_t, N>& at, int64_t n) { f(at, int64_t{1}, n); }, nanos);
  }
  for_blocks(meter, 0, nest.runs(), std::max<int64_t>(1, inner * nanos), [&](int64_t first, int64_t last) {
    for_each_rows(nest, first, last, [&](const std::array<int64_t, N>& at, int64_t rows) { f(at, rows, inner); });
  });
}

}  // namespace inferkit
