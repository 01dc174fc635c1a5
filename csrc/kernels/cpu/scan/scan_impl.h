// Scans of one tier; included by <tier>.cc.
#pragma once
#include "kernels/cpu/scan/scan.h"
#include "kernels/cpu/simd.h"

namespace inferkit::kernels::INFERKIT_TIER {
namespace {

/// A float is NaN or infinite where every bit of its exponent is set: adding the lowest of them then carries into the
/// sign bit. So a scan is and, add, or.
template <class Word, int exponent_bits, int fraction_bits>
struct Format {
  using Type = Word;
  static constexpr Word kStep = Word{1} << fraction_bits;
  static constexpr Word kExponent = static_cast<Word>(((Word{1} << exponent_bits) - 1) << fraction_bits);
  static constexpr Word kSign = Word{1} << (exponent_bits + fraction_bits);
};
using F32 = Format<uint32_t, 8, 23>;
using F64 = Format<uint64_t, 11, 52>;
using F16 = Format<uint16_t, 5, 10>;
using BF16 = Format<uint16_t, 8, 7>;

/// The or, over all words, of mark(word); copies them to dst on the way where dst is not null.
template <class Word, bool copying, class Mark>
INFERKIT_INLINE Word scan(void* dst, const void* src, int64_t n, Mark mark) {
  typedef Word Lanes __attribute__((vector_size(sizeof(Native))));
  constexpr int64_t kWidth = sizeof(Native), kUnroll = 4, kStep = kUnroll * kWidth;
  const char* from = static_cast<const char*>(src);
  char* to = static_cast<char*>(dst);
  int64_t bytes = n * static_cast<int64_t>(sizeof(Word));
  Lanes marks[kUnroll] = {};
  for (; bytes >= kStep; bytes -= kStep, from += kStep) {
    _Pragma("GCC unroll 4") for (int u = 0; u < kUnroll; ++u) {
      Lanes v;
      memcpy(&v, from + u * kWidth, kWidth);
      if constexpr (copying) memcpy(to + u * kWidth, &v, kWidth);
      marks[u] |= mark(v);
    }
    if constexpr (copying) to += kStep;
  }
  const Lanes lanes = (marks[0] | marks[1]) | (marks[2] | marks[3]);
  Word all = 0;
  for (int64_t j = 0; j < kWidth / static_cast<int64_t>(sizeof(Word)); ++j) all = static_cast<Word>(all | lanes[j]);
  for (; bytes > 0; bytes -= sizeof(Word), from += sizeof(Word)) {
    Word v;
    memcpy(&v, from, sizeof(Word));
    if constexpr (copying) {
      memcpy(to, &v, sizeof(Word));
      to += sizeof(Word);
    }
    all = static_cast<Word>(all | mark(v));
  }
  return all;
}

template <class F>
struct NonFinite {
  template <class V>
  INFERKIT_MEMBER V operator()(V v) const {
    return static_cast<V>((v & F::kExponent) + F::kStep);
  }
};
template <class F>
struct Magnitude {
  template <class V>
  INFERKIT_MEMBER V operator()(V v) const {
    return static_cast<V>(v & static_cast<typename F::Type>(F::kSign - 1));
  }
};

template <class F>
bool finite(const void* src, int64_t n) {
  return (scan<typename F::Type, false>(nullptr, src, n, NonFinite<F>{}) & F::kSign) == 0;
}
template <class F>
bool copy_finite(void* dst, const void* src, int64_t n) {
  return (scan<typename F::Type, true>(dst, src, n, NonFinite<F>{}) & F::kSign) == 0;
}
template <class F>
bool zero(const void* src, int64_t n) {
  return scan<typename F::Type, false>(nullptr, src, n, Magnitude<F>{}) == 0;
}

}  // namespace

extern const ScanKernels kScan;
// In the order of enum FloatKind.
const ScanKernels kScan = {
    compiled_isa,
    {finite<F32>, finite<F64>, finite<F16>, finite<BF16>},
    {copy_finite<F32>, copy_finite<F64>, copy_finite<F16>, copy_finite<BF16>},
    {zero<F32>, zero<F64>, zero<F16>, zero<BF16>},
};

}  // namespace inferkit::kernels::INFERKIT_TIER
