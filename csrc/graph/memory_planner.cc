#include "graph/memory_planner.h"

#include <algorithm>
#include <limits>
#include <map>
#include <queue>
#include <set>
#include <stdexcept>

#include "base/error.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

/// The search among all blocks that live at the same time is quadratic.
constexpr size_t kMaxSearched = 2048;

struct Block {
  size_t bytes;  // rounded up
  int first;
  int last;
  uint32_t index;
};

struct Placed {
  size_t begin;
  size_t end;
  int first;
  int last;
};

/// The blocks that take memory, their sizes rounded up; their sum fits size_t, and with it every offset.
std::vector<Block> blocks_of(std::span<const Interval> intervals) {
  std::vector<Block> blocks;
  blocks.reserve(intervals.size());
  size_t sum = 0;
  for (const size_t i : stoppable_indices(intervals.size())) {
    const Interval& in = intervals[i];
    if (in.first > in.last) throw std::invalid_argument(cat("interval ", i, " ends before it starts"));
    if (in.bytes == 0) continue;
    constexpr size_t kMax = std::numeric_limits<size_t>::max();
    if (in.bytes > kMax - kPlanAlignment || sum > kMax - in.bytes - kPlanAlignment)
      throw Error(ErrorCode::kModel, "the intermediates of the model need more memory than there are addresses");
    const size_t bytes = (in.bytes + kPlanAlignment - 1) / kPlanAlignment * kPlanAlignment;
    sum += bytes;
    blocks.push_back({bytes, in.first, in.last, static_cast<uint32_t>(i)});
  }
  return blocks;
}

/// Places the blocks in the order given, each into the smallest gap among those that live at the same time.
size_t place(std::span<const Block> blocks, std::vector<size_t>& offsets) {
  std::vector<Placed> placed;  // by begin
  placed.reserve(blocks.size());
  size_t total = 0;
  for (const Block& b : stoppable(blocks)) {
    size_t cursor = 0;
    size_t best = 0;
    size_t best_gap = std::numeric_limits<size_t>::max();
    bool found = false;
    for (const Placed& p : placed) {
      if (p.first > b.last || p.last < b.first) continue;
      if (p.begin > cursor && p.begin - cursor >= b.bytes && p.begin - cursor < best_gap) {
        best = cursor;
        best_gap = p.begin - cursor;
        found = true;
        if (best_gap == b.bytes) break;
      }
      cursor = std::max(cursor, p.end);
    }
    if (!found) best = cursor;
    offsets[b.index] = best;
    const Placed mine{best, best + b.bytes, b.first, b.last};
    placed.insert(std::upper_bound(placed.begin(), placed.end(), mine,
                                   [](const Placed& x, const Placed& y) { return x.begin < y.begin; }),
                  mine);
    total = std::max(total, mine.end);
  }
  return total;
}

bool born_before(const Block& a, const Block& b) {
  if (a.first != b.first) return a.first < b.first;
  if (a.last != b.last) return a.last > b.last;
  return a.bytes != b.bytes ? a.bytes > b.bytes : a.index < b.index;
}

/// Gaps of the arena below its top, by place and by size.
class FreeList {
 public:
  /// The smallest gap that takes `bytes`, the lowest of its size; else the arena grows.
  size_t take(size_t bytes) {
    size_t begin = top_;
    const auto fit = by_size_.lower_bound({bytes, 0});
    if (fit != by_size_.end()) {
      begin = fit->second;
      const size_t end = begin + fit->first;
      erase(begin, end);
      if (end > begin + bytes) insert(begin + bytes, end);
      return begin;
    }
    if (!ends_.empty() && ends_.rbegin()->second == top_) {  // the gap below the top is part of it
      begin = ends_.rbegin()->first;
      erase(begin, top_);
    }
    top_ = begin + bytes;
    return begin;
  }

  void give(size_t begin, size_t end) {
    const auto after = ends_.lower_bound(begin);
    if (after != ends_.begin()) {
      const auto [b, e] = *std::prev(after);
      if (e == begin) {
        erase(b, e);
        begin = b;
      }
    }
    if (const auto next = ends_.find(end); next != ends_.end()) {
      const size_t e = next->second;
      erase(end, e);
      end = e;
    }
    insert(begin, end);
  }

  size_t top() const { return top_; }

 private:
  void insert(size_t begin, size_t end) {
    ends_.emplace(begin, end);
    by_size_.emplace(end - begin, begin);
  }
  void erase(size_t begin, size_t end) {
    ends_.erase(begin);
    by_size_.erase({end - begin, begin});
  }

  std::map<size_t, size_t> ends_;                // begin -> end; no two touch
  std::set<std::pair<size_t, size_t>> by_size_;  // (size, begin)
  size_t top_ = 0;
};

/// In order of birth, each into the smallest gap that the dead have left: O(n log n).
size_t place_by_birth(std::span<const Block> blocks, std::vector<size_t>& offsets) {
  using Alive = std::pair<int, const Block*>;
  std::priority_queue<Alive, std::vector<Alive>, std::greater<>> alive;  // the first to die on top
  FreeList gaps;
  for (const Block& b : stoppable(blocks)) {
    for (; !alive.empty() && alive.top().first < b.first; alive.pop()) {
      const Block& dead = *alive.top().second;
      gaps.give(offsets[dead.index], offsets[dead.index] + dead.bytes);
    }
    offsets[b.index] = gaps.take(b.bytes);
    alive.emplace(b.last, &b);
  }
  return gaps.top();
}

size_t max_live(std::span<const Block> blocks) {
  std::vector<std::pair<int, size_t>> starts, ends;
  for (const Block& b : blocks) {
    starts.emplace_back(b.first, b.bytes);
    ends.emplace_back(b.last, b.bytes);
  }
  std::sort(starts.begin(), starts.end());
  std::sort(ends.begin(), ends.end());
  size_t live = 0, most = 0, e = 0;
  for (const auto& [step, bytes] : starts) {
    for (; e < ends.size() && ends[e].first < step; ++e) live -= ends[e].second;
    live += bytes;
    most = std::max(most, live);
  }
  return most;
}

}  // namespace

MemoryPlan plan_memory(std::span<const Interval> intervals) {
  std::vector<Block> blocks = blocks_of(intervals);
  MemoryPlan plan{std::vector<size_t>(intervals.size(), 0), 0};
  if (blocks.size() > kMaxSearched) {
    std::sort(blocks.begin(), blocks.end(), born_before);
    plan.total = place_by_birth(blocks, plan.offsets);
    return plan;
  }
  const auto tie = [](const Block& a, const Block& b) {
    return a.first != b.first ? a.first < b.first : a.index < b.index;
  };
  std::sort(blocks.begin(), blocks.end(),
            [&](const Block& a, const Block& b) { return a.bytes != b.bytes ? a.bytes > b.bytes : tie(a, b); });
  plan.total = place(blocks, plan.offsets);
  if (plan.total == max_live(blocks)) return plan;

  // Largest first is poor where long-lived small blocks split the arena; in order of birth it is not.
  std::sort(blocks.begin(), blocks.end(), born_before);
  MemoryPlan other{std::vector<size_t>(intervals.size(), 0), 0};
  other.total = place(blocks, other.offsets);
  return other.total < plan.total ? other : plan;
}

size_t max_live_bytes(std::span<const Interval> intervals) { return max_live(blocks_of(intervals)); }

}  // namespace inferkit
