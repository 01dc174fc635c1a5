#include "batching/pad_cost.h"

#include <algorithm>
#include <utility>

namespace inferkit {

void PadCost::Window::add(const PadRun& run) {
  took += static_cast<double>(run.took);
  own += static_cast<double>(run.own);
  all += static_cast<double>(run.all);
  ++runs;
  requests += run.requests;
}

bool PadCost::is_off(int64_t padded) noexcept {
  const MutexLock lock(mutex_);
  try {
    Length& of = lengths_[padded];
    if (of.left > 0 && --of.left == 0) {
      if (!of.off) of.own_cost = 0;  // was worse then, and may not be now
      of.off = false;
      of.padded = {};
    }
    return of.off;
  } catch (...) {  // no memory: nothing is known of that length
    return false;
  }
}

/// What an element costs of requests that are `part` as long as the length, each in a run of its own. 0: not known.
double PadCost::estimate(Lengths::const_iterator at, double part) const {
  const Length& of = at->second;
  if (of.row_took <= 0) return 0;
  for (auto shorter = at; shorter != lengths_.begin();) {
    --shorter;
    const double took = shorter->second.row_took;
    if (took <= 0) continue;
    const auto from = static_cast<double>(shorter->first), to = static_cast<double>(at->first);
    const double between = std::clamp((part * to - from) / (to - from), 0.0, 1.0);
    return (took + between * std::max(0.0, of.row_took - took)) / (part * of.row_elements);
  }
  return 0;
}

void PadCost::learn(const PadRun& run) noexcept {
  if (run.own == 0) return;
  try {
    const MutexLock lock(mutex_);
    learn_locked(run);
  } catch (...) {  // no memory: one run less
  }
}

void PadCost::learn_locked(const PadRun& run) {
  const auto at = lengths_.try_emplace(run.padded).first;
  Length& of = at->second;
  const bool whole = run.ran == run.padded;
  if (whole && run.row_took > 0) {
    of.row_took = static_cast<double>(run.row_took);
    of.row_elements = static_cast<double>(run.row_elements);
  }
  if (run.first) return;
  // Whole batches of the length itself run either way.
  if (whole && (run.own < run.all || !of.off)) {
    of.padded.add(run);
    if (of.padded.runs < kRuns) return;
    const Window window = std::exchange(of.padded, {});
    if (window.requests < kCompany * window.runs) return;
    of.padded_cost = window.cost();
    const double part = window.own / window.all;
    const double own = of.own_cost > 0 ? of.own_cost : estimate(at, part);
    if (own <= 0) return;
    of.ratio = of.padded_cost / own;
    if (of.off || of.left > 0 || of.ratio < kWorth) return;
    of.off = true;
    of.left = kOff;
    of.own = {};
  } else if (of.off) {
    of.own.add(run);
    if (of.own.requests < kRequests) return;
    of.own_cost = std::exchange(of.own, {}).cost();
    if (of.own_cost <= 0) return;  // on a clock that stands still
    of.ratio = of.padded_cost / of.own_cost;
    if (of.ratio >= 1) return;
    of.off = false;
    of.left = of.hold;
    of.hold = std::min(2 * of.hold, kMostHeld);
    of.padded = {};
  }
}

void PadCost::clear() noexcept {
  const MutexLock lock(mutex_);
  lengths_.clear();
}

std::map<int64_t, PadCost::Figure> PadCost::figures() const {
  std::map<int64_t, Figure> out;
  const MutexLock lock(mutex_);
  for (const auto& [length, of] : lengths_) {
    if (of.ratio > 0) out[length] = {of.ratio, of.off};
  }
  return out;
}

}  // namespace inferkit
