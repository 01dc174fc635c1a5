// How a block walks through the terms of a tile of a convolution: in steps, of which the next ones are on their way
// into shared memory while one is added.
#pragma once
#include "kernels/cuda/conv_taps.h"
#include "kernels/cuda/copies.h"

namespace inferkit::kernels::cuda {
namespace {

/// Up to kDepth terms from `from` on, of the chunk that ends before `end`.
struct ConvStep {
  int32_t chunk, from, end;
};
INFERKIT_DEVICE int32_t lesser(int32_t a, int32_t b) { return a < b ? a : b; }
INFERKIT_DEVICE ConvStep first_of_chunk(const ConvParams& p, int32_t k, int32_t chunk) {
  const int32_t from = chunk * p.chunk;
  return {chunk, from, k - from < p.chunk ? k : from + p.chunk};
}
template <class Cut>
INFERKIT_DEVICE void advance(ConvStep& step, const ConvParams& p, int32_t k) {
  step.from += Cut::kDepth;
  if (step.from >= step.end) step = first_of_chunk(p, k, step.chunk + 1);
}
template <class Cut>
INFERKIT_DEVICE int terms_of(const ConvStep& step) {
  return lesser(Cut::kDepth, step.end - step.from);
}

/// The number of the pixel that a thread copies for: of those of a tile each kLines-th thread has the same, or where a
/// copy is of four neighbours, the first of its four.
template <class Cut>
INFERKIT_DEVICE int64_t pixel_to_copy(const ConvParams& p, int64_t first) {
  const int t = static_cast<int>(threadIdx.x);
  return first + (p.by_fours ? t % (Cut::kColumns / 4) * 4 : t % Cut::kColumns);
}

/// What lies `offset` floats behind an address, which is one of an array alone where something is there to be copied.
INFERKIT_DEVICE const float* behind(uintptr_t address, int64_t offset) {
  return reinterpret_cast<const float*>(address + static_cast<uintptr_t>(offset) * sizeof(float));
}

/// Where a thread copies from.
struct Source {
  uintptr_t first;   // the address of the window's first element, which may be padding
  uint32_t padding;  // padding_of()
  int64_t pixel;
};
INFERKIT_DEVICE Source source_of(const ConvParams& p, const float* x, int64_t number) {
  const Pixel pixel = pixel_at(p, number);
  const auto first = reinterpret_cast<uintptr_t>(behind(reinterpret_cast<uintptr_t>(x), pixel.image + pixel.from));
  return {first, padding_of(p, pixel), number};
}

/// Begins to copy the windows of a step, [depth][column], with zeros behind the last term. No branch is in the loops,
/// and taps are read some before they are used: a thread waits for no more than that.
template <class Cut>
INFERKIT_DEVICE void copy_windows(const ConvParams& p, const Source& from, const Tap* taps, const ConvStep& step,
                                  float* bs) {
  const int t = static_cast<int>(threadIdx.x), terms = terms_of<Cut>(step);
  if (p.by_fours) {
    constexpr int kFours = Cut::kColumns / 4, kLines = Cut::kThreads / kFours;
    const int line = t / kFours;
    float* const to = bs + line * Cut::kPitch + t % kFours * 4;
    const int64_t area = in_area(p), at = (step.from + line) * area;
#pragma unroll
    for (int i = 0; i < Cut::kDepth; i += kLines) {
      const bool there = (from.padding == 0) & (line + i < terms);
      begin_copy<4>(to + i * Cut::kPitch, behind(from.first, at + i * area), there);
    }
    return;
  }
  constexpr int kLines = Cut::kThreads / Cut::kColumns, kGroup = 8;
  const int line = t / Cut::kColumns;
  float* const to = bs + line * Cut::kPitch + t % Cut::kColumns;
  if (p.reach != Reach::kFar) {
#pragma unroll
    for (int i = 0; i < Cut::kDepth; i += kGroup * kLines) {
      Tap group[kGroup];
#pragma unroll
      for (int j = 0; j < kGroup; ++j) group[j] = taps[line + i + j * kLines];
#pragma unroll
      for (int j = 0; j < kGroup; ++j) {
        const int depth = i + j * kLines;
        const bool there = ((group[j].lines & from.padding) == 0) & (line + depth < terms);
        begin_copy<1>(to + depth * Cut::kPitch, behind(from.first, group[j].offset), there);
      }
    }
  } else {
    const Pixel pixel = pixel_at(p, from.pixel);
#pragma unroll 1
    for (int i = 0; i < Cut::kDepth; i += kLines) {
      const Tap tap = taps[line + i];
      const bool there = line + i < terms && is_inside(p, pixel, tap);
      begin_copy<1>(to + i * Cut::kPitch, behind(from.first, tap.offset), there);
    }
  }
}

/// The table of a chunk's taps.
template <class Cut>
INFERKIT_DEVICE void note_taps(const ConvParams& p, const ConvStep& first, Tap* taps) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < first.end - first.from; i += Cut::kThreads) {
    taps[i] = tap_at(p, first.from + i);
  }
}

/// Walks through the chunks from `chunk` to before `chunks`. copy_filters(step, as) begins the copies of a step's
/// filters, add(as, bs, terms) adds its terms, end_chunk() says that a chunk is complete. The threads meet before the
/// first copy.
template <class Cut, class CopyFilters, class Add, class EndChunk>
INFERKIT_DEVICE void walk_chunks(const ConvParams& p, float* shared, const Source& from, int32_t chunk, int32_t chunks,
                                 const CopyFilters& copy_filters, const Add& add, const EndChunk& end_chunk) {
  const int32_t k = p.channels * taps_of(p);
  Tap* const taps = reinterpret_cast<Tap*>(shared + Cut::kStages * Cut::kStepFloats);  // [chunk % 2][term]
  const auto stage = [&](int number) { return shared + number * Cut::kStepFloats; };
  ConvStep next = first_of_chunk(p, k, chunk), step = next;
  const auto copy_next = [&](int number) {
    if (next.chunk < chunks) {
      float* const as = stage(number);
      copy_filters(next, as);
      const Tap* const of_chunk = taps + next.chunk % 2 * kMostTaps;
      copy_windows<Cut>(p, from, of_chunk + (next.from - next.chunk * p.chunk), next, as + Cut::kFilterFloats);
      // The table of the next chunk, over that of the last one, whose copies have all begun.
      if (!p.by_fours && next.from == next.chunk * p.chunk && next.chunk + 1 < chunks) {
        note_taps<Cut>(p, first_of_chunk(p, k, next.chunk + 1), taps + (next.chunk + 1) % 2 * kMostTaps);
      }
      advance<Cut>(next, p, k);
    }
    close_copies();
  };
  if (!p.by_fours) note_taps<Cut>(p, next, taps + chunk % 2 * kMostTaps);
  __syncthreads();
#pragma unroll 1
  for (int i = 0; i + 1 < Cut::kStages; ++i) {
    copy_next(i);
    __syncthreads();
  }
  for (int to = Cut::kStages - 1, at = 0; step.chunk < chunks;) {
    await_copies<Cut::kStages - 2>();
    __syncthreads();  // the step has arrived, and the one before it is no longer read
    copy_next(to);
    const float* const as = stage(at);
    const int terms = terms_of<Cut>(step);
    add(as, as + Cut::kFilterFloats, terms);
    if (step.from + Cut::kDepth >= step.end) end_chunk();
    advance<Cut>(step, p, k);
    if (++to == Cut::kStages) to = 0;
    if (++at == Cut::kStages) at = 0;
  }
}

/// Calls use(row) for the rows of a tile in which this thread has an element, whose column is always the same.
template <class Cut, int kUnrolled, class Use>
INFERKIT_DEVICE void for_own_rows(const Use& use) {
  constexpr int kLines = Cut::kThreads / Cut::kColumns;
#pragma unroll kUnrolled
  for (int row = static_cast<int>(threadIdx.x) / Cut::kColumns; row < Cut::kRows; row += kLines) use(row);
}

/// The sums of a tile, [row][column] with Cut::kPitch from row to row, become elements of y, or of a part.
template <class Cut>
INFERKIT_DEVICE void put_tile(const ConvParams& p, const float* sums, int32_t group, int32_t chunk, int32_t filter0,
                              int64_t pixel0) {
  const int32_t area = out_area(p);
  const int column = static_cast<int>(threadIdx.x) % Cut::kColumns;
  const Pixel pixel = pixel_at(p, pixel0 + column);
  if (!pixel.inside) return;
  const int64_t filter = int64_t{group} * p.filters + filter0, at = pixel.to + filter * area;
  float* const to = (p.parts ? p.parts + chunk * (p.batch * p.groups * p.filters * area) : p.y) + at;
  const auto put = [&](int row, auto value) {
    if (filter0 + row < p.filters) to[int64_t{row} * area] = value(sums[row * Cut::kPitch + column], filter + row);
  };
  if (p.parts) {
    for_own_rows<Cut, 4>([&](int row) { put(row, [](float sum, int64_t) { return sum; }); });
  } else if (p.act == Unary::kIdentity) {
    for_own_rows<Cut, 4>([&](int row) { put(row, [&](float sum, int64_t of) { return with_bias(p, sum, of); }); });
  } else if (p.act == Unary::kRelu) {  // the usual one without a look at which it is for each element
    for_own_rows<Cut, 4>([&](int row) {
      put(row, [&](float sum, int64_t of) { return apply_unary(Unary::kRelu, with_bias(p, sum, of), 0, 0); });
    });
  } else {
    for_own_rows<Cut, 1>([&](int row) { put(row, [&](float sum, int64_t of) { return finished(p, sum, of); }); });
  }
}

/// Calls make(group, first chunk, chunk behind the last, first filter, first pixel) for the tiles of this block.
template <class Cut, class Make>
INFERKIT_DEVICE void for_each_tile(const ConvParams& p, const Make& make) {
  const int32_t k = p.channels * taps_of(p), chunks = (k - 1) / p.chunk + 1, parts = p.parts ? chunks : 1;
  const int64_t pixels = p.batch * out_area(p), depth = int64_t{p.groups} * parts;
  for (int64_t z = blockIdx.z; z < depth; z += gridDim.z) {
    const auto group = static_cast<int32_t>(z / parts), part = static_cast<int32_t>(z % parts);
    for (int64_t pixel0 = int64_t{blockIdx.y} * Cut::kColumns; pixel0 < pixels;
         pixel0 += int64_t{gridDim.y} * Cut::kColumns) {
      make(group, part, p.parts ? part + 1 : chunks, static_cast<int32_t>(blockIdx.x) * Cut::kRows, pixel0);
    }
  }
}

}  // namespace
}  // namespace inferkit::kernels::cuda
