// What every GEMM of a tier shares; part of gemm_impl.h: the sums of a tile over K, in one order wherever B lies, and
// the cutting of C into tiles. Written once for float and double: a vector of either has 64 bytes, which is a panel of
// B.
#pragma once
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_double.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

// How many vectors of sums fit the registers beside a row of B and a value of A, and how many rows a tile may have
// whose steps are unrolled (multiply).
#if defined(__AVX512F__)
constexpr int kMaxSums = 24;
constexpr int kMaxRows = 12;
constexpr int kUnrolledRows = 8;
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int kMaxSums = 6;
constexpr int kMaxRows = 6;
constexpr int kUnrolledRows = 3;
#else
constexpr int kMaxSums = 3;
constexpr int kMaxRows = 3;
constexpr int kUnrolledRows = 2;
#endif
constexpr int kMaxPanels = 8;
/// The widest tile of so many rows. One row alone may spread wider: its B is read once, so that only latency counts.
constexpr int widest(int rows) {
  const int fit = kMaxSums / rows;
  // Eight panels of three rows would need a register more than there are.
  const int panels = rows == 1 ? 8 : fit > 8 ? 8 : fit == 8 ? 6 : fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
  return kMaxSums < 8 && panels > 4 ? 4 : panels;
}

template <class V>
inline constexpr int kLanesOf = sizeof(V) / sizeof(typename V::Scalar);

/// Where the panels of a tile lie in B: next() is the row for the next k, panel() a panel of it.
template <class T>
struct PanelsOfB {
  static constexpr bool kUnrolls = sizeof(T) == sizeof(float);
  const T* at;
  int64_t k_stride, panel_stride;
  INFERKIT_MEMBER PanelsOfB from(int64_t k) const { return {at + k * k_stride, k_stride, panel_stride}; }
  INFERKIT_MEMBER const T* next() {
    const T* row = at;
    at += k_stride;
    return row;
  }
  INFERKIT_MEMBER const T* panel(const T* row, int p) const { return row + p * panel_stride; }
};

/// acc += column i of A[kRows, k] times the next row of B. `group` are A's rows in groups of three: x86 addresses base,
/// base + lda and base + 2 lda without another register.
template <class V, int kRows, int kPanels, class B>
INFERKIT_INLINE void multiply_step(V (&acc)[kRows][kPanels], const typename V::Scalar* const* group, int64_t lda, B& b,
                                   int64_t i) {
  V bv[kPanels];
  const typename V::Scalar* row = b.next();
  _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) bv[p] = load(b.panel(row, p));
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    const V av = broadcast(group[r / 3][(r % 3) * lda + i]);
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = fma(av, bv[p], acc[r][p]);
  }
}

/// acc += A[kRows, k] B[k, kPanels * 16], k ascending.
template <class V, int kRows, int kPanels, class B>
INFERKIT_INLINE void multiply(V (&acc)[kRows][kPanels], const typename V::Scalar* a, int64_t lda, B b, int64_t k) {
  constexpr int kGroups = (kRows + 2) / 3;
  const typename V::Scalar* group[kGroups];
  for (int g = 0; g < kGroups; ++g) group[g] = a + 3 * g * lda;
  int64_t i = 0;
  // Few rows are soon through with a chunk, whose end is foreseen where fewer turns come before it. Tall tiles are not
  // faster for it, and slower where the rows of B lie far apart; of tiles that fill the registers, rows of B that are
  // loaded early would wait on the stack.
  if constexpr (B::kUnrolls && kRows <= kUnrolledRows && kRows * kPanels < kMaxSums) {
    for (; i + 4 <= k; i += 4) {
      _Pragma("GCC unroll 4") for (int s = 0; s < 4; ++s) multiply_step(acc, group, lda, b, i + s);
    }
  }
  for (; i < k; ++i) multiply_step(acc, group, lda, b, i);
}

/// kCount chunks side by side, `steps` elements of each: that hides the latency of FMA where a tile has few sums.
template <int kCount, class V, int kRows, int kPanels, class B>
INFERKIT_INLINE void multiply_beside(V (*part)[kRows][kPanels], const typename V::Scalar** a, int64_t lda, B* b,
                                     int64_t steps) {
  for (int64_t i = 0; i < steps; ++i) {
    _Pragma("GCC unroll 4") for (int s = 0; s < kCount; ++s) {
      const typename V::Scalar* row = b[s].next();
      _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
        const V av = broadcast(a[s][r * lda + i]);
        _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
          part[s][r][p] = fma(av, load(b[s].panel(row, p)), part[s][r][p]);
        }
      }
    }
  }
  _Pragma("GCC unroll 4") for (int s = 0; s < kCount; ++s) a[s] += steps;
}

/// acc = the sum of kCount chunks, after what it holds if it `holds` some. The last chunk has `last` elements.
template <int kCount, class V, int kRows, int kPanels, class B>
INFERKIT_INLINE void add_beside(V (&acc)[kRows][kPanels], const typename V::Scalar* a, int64_t lda, B b, int64_t chunk,
                                int64_t last, bool holds) {
  V part[kCount][kRows][kPanels];
  const typename V::Scalar* as[kCount];
  B bs[kCount];
  _Pragma("GCC unroll 4") for (int s = 0; s < kCount; ++s) {
    as[s] = a + s * chunk;
    bs[s] = b.from(s * chunk);
    _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
      _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) part[s][r][p] = broadcast(typename V::Scalar(0));
    }
  }
  multiply_beside<kCount>(part, as, lda, bs, last);
  multiply_beside<kCount - 1>(part, as, lda, bs, chunk - last);
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
      acc[r][p] = holds ? acc[r][p] + part[0][r][p] : part[0][r][p];
      _Pragma("GCC unroll 4") for (int s = 1; s < kCount; ++s) acc[r][p] = acc[r][p] + part[s][r][p];
    }
  }
}

/// How many chunks of a tile are summed side by side: no more than hide the latency of FMA, and than there are
/// registers for. Each reads a stream of B for each panel, at the same places of their pages: sixteen of them evict
/// each other from L1, and one row of 256 x 256 takes twice as long as by eight.
constexpr int beside(int sums) {
  constexpr int kMost = kMaxSums < 12 ? kMaxSums : 12;
  return sums * 4 <= kMost ? 4 : sums * 2 <= kMost ? 2 : 1;
}

/// Sums of the chunks before these: rows of C, whose last panel has `last` columns, or nothing.
template <class V>
struct Before {
  const typename V::Scalar* at = nullptr;
  int64_t stride = 0, last = kLanesOf<V>;
  INFERKIT_MEMBER V get(int r, int p, int panels) const {
    const typename V::Scalar* from = at + r * stride + p * kLanesOf<V>;
    return p == panels - 1 && last < kLanesOf<V> ? load_partial(from, last) : load(from);
  }
};

template <class V, int kRows, int kPanels>
INFERKIT_INLINE void load_before(V (&acc)[kRows][kPanels], const Before<V>& before) {
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = before.get(r, p, kPanels);
  }
}

template <class V, int kRows, int kPanels>
INFERKIT_INLINE void add_before(V (&acc)[kRows][kPanels], const Before<V>& before) {
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = before.get(r, p, kPanels) + acc[r][p];
  }
}

template <class V, int kRows, int kPanels>
INFERKIT_INLINE void set_zero(V (&acc)[kRows][kPanels]) {
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) acc[r][p] = broadcast(typename V::Scalar(0));
  }
}

template <class V, int kRows, int kPanels>
INFERKIT_INLINE void store_sums(typename V::Scalar (&to)[kRows][kPanels][kLanesOf<V>], const V (&acc)[kRows][kPanels]) {
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) store(to[r][p], acc[r][p]);
  }
}

template <class V, int kRows, int kPanels>
INFERKIT_INLINE void copy_sums(V (&to)[kRows][kPanels], const V (&acc)[kRows][kPanels]) {
  _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
    _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) to[r][p] = acc[r][p];
  }
}

/// acc = what was summed before, then A B in chunks of k (kernels/summation.h).
template <class V, int kRows, int kPanels, class B>
INFERKIT_INLINE void add_product(V (&acc)[kRows][kPanels], const typename V::Scalar* a, int64_t lda, B b, int64_t k,
                                 int64_t chunk, const Before<V>& before) {
  bool resumes = before.at != nullptr, holds = false;
  int64_t at = 0;
  if constexpr (constexpr int kBeside = beside(kRows * kPanels); kBeside > 1) {
    if (resumes) load_before(acc, before);
    holds = resumes;
    resumes = false;
    for (; k - at > (kBeside - 1) * chunk; at += kBeside * chunk, holds = true) {
      const int64_t last = k - at - (kBeside - 1) * chunk;
      add_beside<kBeside>(acc, a + at, lda, b.from(at), chunk, last < chunk ? last : chunk, holds);
    }
  }
  // In turn, each at the full width of the tile; what was summed before waits in registers, or where those are too few
  // in memory.
  V kept[kRows][kPanels];
  alignas(64) typename V::Scalar waiting[kRows][kPanels][kLanesOf<V>];
  constexpr bool kKeeps = 2 * kRows * kPanels <= kMaxSums;
  for (; at < k; at += chunk, holds = true) {
    if (holds) {
      if constexpr (kKeeps)
        copy_sums(kept, acc);
      else
        store_sums(waiting, acc);
    }
    set_zero(acc);
    multiply(acc, a + at, lda, b.from(at), k - at < chunk ? k - at : chunk);
    if (holds) {
      _Pragma("GCC unroll 12") for (int r = 0; r < kRows; ++r) {
        _Pragma("GCC unroll 8") for (int p = 0; p < kPanels; ++p) {
          if constexpr (kKeeps)
            acc[r][p] = kept[r][p] + acc[r][p];
          else
            acc[r][p] = load(waiting[r][p]) + acc[r][p];
        }
      }
    } else if (resumes) {
      add_before(acc, before);
    }
  }
  if (!holds) set_zero(acc);  // k is 0
}

/// The tiles of one kind of GEMM, Tile<rows, panels>::run, where that many sums fit.
template <class Args, template <int, int> class Tile>
struct Tiles {
  using Fn = void (*)(const Args& g, int64_t row, int64_t panel);
  struct Row {
    Fn of_panels[kMaxPanels + 1];
  };
  template <int kRows, int kPanels>
  static constexpr Fn tile_or_null() {
    if constexpr (kRows <= kMaxRows && kPanels <= widest(kRows)) return Tile<kRows, kPanels>::run;
    return nullptr;
  }
  template <int kRows>
  static constexpr Row row() {
    return {{nullptr, tile_or_null<kRows, 1>(), tile_or_null<kRows, 2>(), tile_or_null<kRows, 3>(),
             tile_or_null<kRows, 4>(), tile_or_null<kRows, 5>(), tile_or_null<kRows, 6>(), tile_or_null<kRows, 7>(),
             tile_or_null<kRows, 8>()}};
  }
  static constexpr Row of_rows[] = {{},       row<1>(), row<2>(), row<3>(),  row<4>(),  row<5>(), row<6>(),
                                    row<7>(), row<8>(), row<9>(), row<10>(), row<11>(), row<12>()};
};

INFERKIT_INLINE int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Where part i of `parts` nearly equal parts of [0, total) begins: 13 rows are 7 + 6, never 12 + 1.
INFERKIT_INLINE int64_t part_start(int64_t total, int64_t parts, int64_t i) {
  return total / parts * i + (i < total % parts ? i : total % parts);
}

/// Rows [row, row + rows) of panels [first, first + width), in tiles as wide as the rows allow.
template <class Args, template <int, int> class Tile>
INFERKIT_INLINE void row_of_tiles(const Args& g, int64_t row, int64_t rows, int64_t first, int64_t width) {
  const int64_t chunks = ceil_div(width, widest(static_cast<int>(rows)));
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t at = part_start(width, chunks, i), count = part_start(width, chunks, i + 1) - at;
    Tiles<Args, Tile>::of_rows[rows].of_panels[count](g, row, first + at);
  }
}

}  // namespace
}  // namespace inferkit::kernels::INFERKIT_TIER
