#include "batching/policy.h"

#include <algorithm>
#include <array>

namespace inferkit {
namespace {

constexpr std::array<std::string_view, kDispatchReasonCount> kNames = {"full",  "ready",  "delay",  "deadline",
                                                                       "drain", "caller", "enough", "company"};

Nanos plus(Nanos a, Nanos b) { return a > kNever - b ? kNever : a + b; }

bool goes_before(const BucketState& a, const BucketState& b) {
  return a.turn != b.turn ? a.turn < b.turn : a.head < b.head;
}

}  // namespace

std::string_view dispatch_reason_name(DispatchReason reason) { return kNames[static_cast<size_t>(reason)]; }

Due due(const BucketState& b, const PolicyOptions& options, bool draining) {
  if (b.rows >= std::min(options.max_rows, b.most)) return {0, DispatchReason::kFull};
  if (b.rows >= b.pays) return {0, DispatchReason::kEnough};
  if (draining) return {0, DispatchReason::kDrain};
  if (options.alone) return {0, DispatchReason::kReady};
  Due out;
  if (const Nanos delay = b.delay < 0 ? options.max_delay : b.delay; delay > 0) {
    out = {plus(b.oldest, delay), DispatchReason::kDelay};
  } else if (b.company > 0) {
    out = {b.rows < b.expected ? b.company : 0, DispatchReason::kCompany};
  }
  const Nanos latest = b.earliest_deadline == kNever ? kNever : b.earliest_deadline - b.headroom;
  return latest < out.at ? Due{latest, DispatchReason::kDeadline} : out;
}

Decision decide(std::span<const BucketState> buckets, Nanos now, const PolicyOptions& options, bool draining) {
  Decision best;
  for (size_t i = 0; i < buckets.size(); ++i) {
    const auto [at, reason] = due(buckets[i], options, draining);
    if (at <= now) {
      if (best.kind == Decision::Kind::kDispatch && !goes_before(buckets[i], buckets[best.bucket])) continue;
      best = {Decision::Kind::kDispatch, i, reason, kNever};
    } else if (best.kind != Decision::Kind::kDispatch) {
      best.kind = Decision::Kind::kWait;
      best.until = std::min(best.until, at);
    }
  }
  return best;
}

}  // namespace inferkit
