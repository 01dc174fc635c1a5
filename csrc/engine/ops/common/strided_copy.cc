#include "engine/ops/common/strided_copy.h"

#include <cstring>

#include "engine/ops/common/any_width.h"
#include "engine/ops/common/transpose_tile.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr int64_t kGrainBytes = 1 << 18;  // worth a thread
constexpr int64_t kLongLoop = 1 << 20;    // worth a look whether to go on

struct CopyParams {
  LoopNest<2> nest;  // in, out
  int64_t offset;    // into in
  int64_t bytes;     // of all elements
};

template <class W>
void run_contiguous(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const CopyParams*>(params);
  if (p.bytes > 0) {
    copy_in_blocks(io[1], io[0] + p.offset * static_cast<int64_t>(sizeof(W)), static_cast<size_t>(p.bytes));
  }
}

/// An inner loop, which the input walks with stride 1 (memcpy), 0 (fill) or any other.
template <class W>
void copy_loop(W* to, const W* from, int64_t stride, int64_t n) {
  if (stride == 1 && n >= 16) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(W));
  } else if (stride == 0) {
    const W v = *from;
    for (int64_t i = 0; i < n; ++i) to[i] = v;
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
  }
}

template <class W>
void run_strided(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const CopyParams*>(params);
  const W* in = reinterpret_cast<const W*>(io[0]) + p.offset;
  W* out = reinterpret_cast<W*>(io[1]);
  const int64_t n = p.nest.inner(), stride = p.nest.inner_stride(0);
  const int64_t grain = kGrainBytes / (static_cast<int64_t>(sizeof(W)) * std::max<int64_t>(n, 1));
  for_ranges(context, p.nest.runs(), grain, [&](int64_t first, int64_t last) {
    for_each_run(p.nest, first, last, [&](const auto& at, int64_t) {
      const W* from = in + at[0];
      W* to = out + at[1];
      if (n > kLongLoop) {
        in_blocks(
            n, [&](int64_t begin, int64_t end) { copy_loop(to + begin, from + begin * stride, stride, end - begin); });
      } else {
        copy_loop(to, from, stride, n);
      }
    });
  });
}

struct TransposeParams {
  LoopNest<2> outer;  // what is neither rows nor columns; in, out
  int64_t rows, columns;
  int64_t in_stride;   // between columns; rows are adjacent
  int64_t out_stride;  // between rows; columns are adjacent
  int64_t offset;
  int64_t row_blocks;
};

template <class W>
void run_transpose(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const TransposeParams*>(params);
  const W* in = reinterpret_cast<const W*>(io[0]) + p.offset;
  W* out = reinterpret_cast<W*>(io[1]);
  // A unit is one row block of one outer element.
  const int64_t grain = kGrainBytes / (kTransposeTile * p.columns * static_cast<int64_t>(sizeof(W)));
  for_ranges(context, p.outer.elements() * p.row_blocks, grain, [&](int64_t first, int64_t last) {
    const int64_t from = first / p.row_blocks, to = (last + p.row_blocks - 1) / p.row_blocks;
    for_each_run(p.outer, from, to, [&](const auto& at, int64_t run) {
      const int64_t begin = std::max(first - run * p.row_blocks, int64_t{0});
      const int64_t end = std::min(last - run * p.row_blocks, p.row_blocks);
      for (int64_t block = begin; block < end; ++block) {
        const int64_t r = block * kTransposeTile, rows = std::min(kTransposeTile, p.rows - r);
        transpose(in + at[0] + r, p.in_stride, out + at[1] + r * p.out_stride, p.out_stride, rows, p.columns);
      }
    });
  });
}

// Splits a nest whose inner loop jumps in the input, but in which another dimension is adjacent there. The nest that is
// left has an inner loop of 1, so that its runs are its elements.
TransposeParams split_transpose(const LoopNest<2>& nest, size_t row_dim, int64_t offset) {
  TransposeParams p{};
  const auto rank = static_cast<size_t>(nest.rank);
  p.rows = nest.dims[row_dim];
  p.columns = nest.inner();
  p.in_stride = nest.inner_stride(0);
  p.out_stride = nest.strides[1][row_dim];
  p.offset = offset;
  p.row_blocks = (p.rows + kTransposeTile - 1) / kTransposeTile;
  size_t kept = 0;
  for (size_t i = 0; i + 1 < rank; ++i) {
    if (i == row_dim) continue;
    p.outer.dims[kept] = nest.dims[i];
    for (size_t n = 0; n < 2; ++n) p.outer.strides[n][kept] = nest.strides[n][i];
    ++kept;
  }
  p.outer.dims[kept] = 1;
  p.outer.rank = static_cast<int32_t>(kept + 1);
  return p;
}

}  // namespace

bool is_identity(const Shape& shape, const Strides& strides, int64_t offset) {
  if (offset != 0) return false;
  const Strides own = shape.strides();
  for (size_t i = 0; i < shape.rank(); ++i) {
    if (shape[i] != 1 && strides[i] != own[i]) return false;
  }
  return true;
}

namespace {

/// Two neighbours of four bytes, which move together.
struct Pair {
  uint32_t first, second;
};

/// Is the last dimension one of pairs, which lie in pairs, too?
bool in_pairs(const LoopNest<2>& nest, int64_t offset) {
  if (nest.rank < 2 || nest.inner() != 2 || nest.inner_stride(0) != 1 || offset % 2 != 0) return false;
  for (size_t i = 0; i + 1 < static_cast<size_t>(nest.rank); ++i) {
    if (nest.strides[0][i] % 2 != 0) return false;
  }
  return true;
}

/// The same copy, of pairs.
LoopNest<2> nest_of_pairs(LoopNest<2> nest) {
  --nest.rank;
  for (auto& strides : nest.strides) {
    for (size_t i = 0; i < static_cast<size_t>(nest.rank); ++i) strides[i] /= 2;
  }
  return nest;
}

/// The dimension whose neighbours are neighbours in the input, where those of the inner one are not; kMaxRank where
/// there is none.
size_t adjacent_dim(const LoopNest<2>& nest) {
  size_t found = Shape::kMaxRank;
  const int64_t s = nest.inner_stride(0);
  for (size_t i = 0; s != 1 && s != 0 && i + 1 < static_cast<size_t>(nest.rank); ++i) {
    if (nest.strides[0][i] == 1) found = i;
  }
  return found;
}

}  // namespace

void lower_strided_copy(LowerContext& c, Ref in, Ref out, DType dtype, const Shape& shape, const Strides& strides,
                        int64_t offset) {
  const LoopNest<2> nest = make_nest<2>(shape, {strides, shape.strides()});
  const int64_t bytes = shape.elements() * static_cast<int64_t>(dtype_size(dtype));
  const double copy_nanos = static_cast<double>(bytes) / 16;
  const bool contiguous = nest.rank == 1 && (nest.inner_stride(0) == 1 || nest.inner() == 1);
  if (bytes > 0 && dtype_size(dtype) == sizeof(uint32_t) && in_pairs(nest, offset)) {
    const LoopNest<2> pairs = nest_of_pairs(nest);
    if (const size_t row_dim = adjacent_dim(pairs); row_dim < Shape::kMaxRank) {
      c.step(run_transpose<Pair>, split_transpose(pairs, row_dim, offset / 2), {in, out}, copy_nanos * 2);
      return;
    }
  }
  const size_t row_dim = adjacent_dim(nest);
  if (bytes > 0 && row_dim < Shape::kMaxRank) {
    const StepFn fn = dispatch_any_width(dtype, []<class W>() -> StepFn { return run_transpose<W>; });
    c.step(fn, split_transpose(nest, row_dim, offset), {in, out}, copy_nanos * 3);
    return;
  }
  const StepFn fn =
      dispatch_any_width(dtype, [&]<class W>() -> StepFn { return contiguous ? run_contiguous<W> : run_strided<W>; });
  c.step(fn, CopyParams{nest, offset, bytes}, {in, out},
         copy_nanos + static_cast<double>(nest.runs()) * 2 + (contiguous ? 0 : copy_nanos));
}

}  // namespace inferkit
