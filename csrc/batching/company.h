// Who comes soon after whom: when a free worker had better wait a little.
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "batching/cut.h"

namespace inferkit {

/// Spans of time, each twice the one before: kFirstSpan, 2 * kFirstSpan, ...
inline constexpr size_t kSpans = 16;
inline constexpr Nanos kFirstSpan = 25'000;
/// How many rows have come within each of them, in the mean, after a batch of some size could have gone.
using ComersWithin = std::array<double, kSpans>;

/// Waiting, and waking up from it, is not worth it for runs that are shorter.
inline constexpr Nanos kShortRun = 200'000;

/// For how long a batch is to wait for company; 0: not at all.
struct Gathering {
  Nanos span = 0;
  int64_t rows = 0;  // that are likely to come within it
};

/// Whether a batch of `rows`, which could go now to the only free worker, had better wait for those who come next: a
/// pure function. It weighs what there is to win, as those who come do not wait for this run to be over but share it,
/// against what everybody waits longer, those as well who come during the run. Where requests come at random it is
/// never worth it, however many there are, since as many come during the run as during the wait. It is where they come
/// closer together after a batch could have gone than later on: those of clients that have all just had their answers.
/// A batch has at most `most` rows. `waits`: whether it does so already, which it goes on with for less.
Gathering worth_waiting(const ComersWithin& within, int64_t rows, int64_t most, bool waits, RunCost cost);

/// What has been seen of that, for one layout, by the size of the batch that could go. Whether that batch did go, or
/// waited, makes no difference to what is seen: so what follows from it does not undo itself. One odd moment counts for
/// little. Not thread-safe.
class Companions {
 public:
  static constexpr size_t kSizes = 12;  // 1, 2, 3 to 4, 5 to 8, ... rows

  /// A batch of `rows` could go, at `now`: those that came after the one before have been seen.
  void could_go(Nanos now, int64_t rows, int64_t most, RunCost cost) noexcept;
  /// So many rows came.
  void came(Nanos now, int64_t rows) noexcept {
    const size_t span = span_of(now - since_);
    if (span < kSpans) came_[span] += static_cast<float>(rows);
  }
  /// For how long the batch that could go at last had better wait.
  const Gathering& gathering() const noexcept { return sizes_[size_].gathering; }
  /// And one of `rows`.
  const Gathering& gathering(int64_t rows) const noexcept { return sizes_[size_of(rows)].gathering; }

  static size_t span_of(Nanos after) {
    return after <= kFirstSpan ? 0
                               : static_cast<size_t>(std::bit_width(static_cast<uint64_t>((after - 1) / kFirstSpan)));
  }

 private:
  static size_t size_of(int64_t rows) {
    return std::min(static_cast<size_t>(std::bit_width(static_cast<uint64_t>(rows - 1))), kSizes - 1);
  }

  struct Size {
    std::array<float, kSpans> came{};  // in each span and not in the one before it
    uint32_t seen = 0;
    Gathering gathering{};
  };

  std::array<Size, kSizes> sizes_{};
  std::array<float, kSpans> came_{};  // after the last one
  size_t size_ = 0;                   // of that
  int64_t rows_ = 0;
  Nanos since_ = 0;
};

}  // namespace inferkit
