#include "batching/company.h"

#include <algorithm>
#include <cmath>

namespace inferkit {
namespace {

constexpr double kBegins = 2, kGoesOn = 1.3;  // times what it costs is what waiting has to win
constexpr uint32_t kSeen = 16;                // before anything is concluded
constexpr float kOne = 1.0f / 16;             // what one of them counts for
constexpr float kUpTo = 4;                    // times the mean that one may be

}  // namespace

Gathering worth_waiting(const ComersWithin& within, int64_t rows, int64_t most, bool waits, RunCost cost) {
  const Forecast alone = cost(rows);
  if (!alone.known || alone.typical < kShortRun || rows >= most) return {};
  const auto n = double(rows), run = double(alone.typical);
  const double during = within[std::min(Companions::span_of(alone.typical), kSpans - 1)];
  Gathering best;
  double least = 0;
  for (size_t i = 0; i < kSpans && kFirstSpan << i <= alone.typical / 2; ++i) {
    const double f = std::min(within[i], double(most - rows)), wait = double(kFirstSpan << i);
    if (f < 0.5) continue;
    const int64_t more = std::max<int64_t>(1, std::llround(f));
    // All of them one after the other, or together: the sum of what they wait for their answers.
    const double apart = n * run + f * (run + double(cost(more).typical));
    const double won = apart - (n + f) * double(cost(rows + more).typical);
    const double lost = (n + f) * wait + std::max(0.0, during - f) * wait;
    if (won <= (waits ? kGoesOn : kBegins) * lost || won - lost <= least) continue;
    least = won - lost;
    best = {kFirstSpan << i, more};
  }
  return best;
}

void Companions::could_go(Nanos now, int64_t rows, int64_t most, RunCost cost) noexcept {
  if (since_ > 0) {
    Size& of = sizes_[size_];
    const float part = of.seen < kSeen ? 1.0f / static_cast<float>(of.seen + 1) : kOne;
    ComersWithin within{};
    double sum = 0;
    for (size_t i = 0; i < kSpans; ++i) {
      const float clipped = of.seen < kSeen ? came_[i] : std::min(came_[i], kUpTo * of.came[i] + 1);
      of.came[i] += part * (clipped - of.came[i]);
      within[i] = sum += of.came[i];
    }
    of.seen = std::min(of.seen + 1, kSeen);
    if (of.seen == kSeen) of.gathering = worth_waiting(within, rows_, most, of.gathering.span > 0, cost);
  }
  came_.fill(0);
  since_ = now;
  rows_ = rows;
  size_ = size_of(rows);
}

}  // namespace inferkit
