#include "batching/share.h"

#include <algorithm>

namespace inferkit {
namespace {

constexpr double kWake = 15'000;  // until a sleeping worker has taken its batch
constexpr double kWorthIt = 0.85;

}  // namespace

int64_t share_of(int64_t rows, int64_t most, int64_t first, int idle, TypicalCost cost) {
  const int64_t whole = std::min(rows, most);
  if (idle <= 0 || whole <= first || rows >= most * (int64_t{idle} + 1)) return most;  // else each has a whole one
  const auto together = double(cost(whole));
  if (together < kWake) return most;  // nobody else would be awake before it is over
  int64_t best = most;
  double least = kWorthIt * together;
  const int64_t others = std::min<int64_t>(idle + 1, rows);
  // Some numbers of batches stand for those between them.
  for (int64_t parts = 2; parts <= others;
       parts = parts == others ? others + 1 : std::min(others, parts + (parts + 1) / 2)) {
    const int64_t each = std::max(first, (rows + parts - 1) / parts);
    if (each >= whole) continue;
    const double over = double(cost(each)) + kWake * double(parts - 1);
    if (over >= least) continue;
    best = each;
    least = over;
  }
  return best;
}

}  // namespace inferkit
