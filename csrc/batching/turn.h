// Who goes first: a pure function of what a request says when it comes, so that the order of two never changes.
#pragma once
#include <algorithm>

#include "platform/clock.h"

namespace inferkit {

/// How many seconds of waiting a level of priority is worth, where nobody says otherwise.
inline constexpr Nanos kAgeing = 10'000'000'000;
/// More than that, half a year, is no more: the highest priority goes first, always.
inline constexpr Nanos kMostAgeing = Nanos{1} << 54;
/// A deadline that is further away counts as none.
inline constexpr Nanos kPatience = 10'000'000'000;

/// How far ahead the deadlines of one priority are told apart; not more than a level is worth.
constexpr Nanos patience_of(Nanos ageing) { return std::min(ageing, kPatience); }

/// The smallest goes first, of equal ones the one that was queued first. With A the ageing and P <= A the patience:
/// - Of one priority, the earliest deadline goes first. Whoever has none, or one that is more than P away, counts as
///   one whose deadline is P away: they keep the order in which they came.
/// - A request goes before all of lower priority, but for those that have waited A longer for each level between.
/// - Who has waited P, and A for each level of another's priority above its own, is overtaken by nobody of that
///   priority who comes then.
constexpr Nanos turn_of(Nanos enqueued, Nanos deadline, int priority, Nanos ageing) {
  const Nanos level = std::min(ageing, kMostAgeing);
  return std::min(deadline, std::min(enqueued, kNever / 2) + patience_of(level)) - priority * level;
}

}  // namespace inferkit
