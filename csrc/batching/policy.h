// When a batch goes, and which: a pure function, so that tests give it any state and any time.
#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "batching/turn.h"
#include "platform/clock.h"

namespace inferkit {

/// Requests of one layout that wait, in numbers. There is at least one.
struct BucketState {
  int64_t rows = 0;
  Nanos oldest = 0;                                    // the earliest enqueue time among them
  Nanos earliest_deadline = kNever;                    // the earliest among them
  Nanos turn = 0;                                      // of the request that would go first
  uint64_t head = 0;                                   // the order in which that was queued
  Nanos headroom = 0;                                  // how long before its deadline a request must go to be in time
  int64_t most = std::numeric_limits<int64_t>::max();  // rows of a batch of it
  int64_t pays = std::numeric_limits<int64_t>::max();  // more rows than that make none of them cheaper: see pays.h
  Nanos company = 0;  // until when a free worker waits, since others are likely to come: see company.h; 0: not at all
  int64_t expected = 0;  // rows that it waits for
  Nanos delay = -1;      // how long its oldest may wait for others; -1: as long as the options say
};

struct PolicyOptions {
  int64_t max_rows = 1;    // of a batch
  Nanos max_delay = 0;     // how long the oldest request may wait for company
  bool alone = false;      // each request is a batch of its own
  Nanos ageing = kAgeing;  // what a level of priority is worth: see turn_of()
};

enum class DispatchReason : uint8_t {
  kFull,      // a whole batch is there
  kReady,     // somebody is free to run it, and no delay is asked for
  kDelay,     // the oldest has waited max_delay
  kDeadline,  // waiting longer would let a deadline pass
  kDrain,     // nobody will join any more
  kCaller,    // the batcher was idle: the caller ran it
  kEnough,    // as many rows as pay are there
  kCompany,   // those that were likely to come have come, or have had their time
};
inline constexpr int kDispatchReasonCount = 8;
std::string_view dispatch_reason_name(DispatchReason reason);

struct Decision {
  enum class Kind : uint8_t { kIdle, kDispatch, kWait };
  Kind kind = Kind::kIdle;
  size_t bucket = 0;  // of a dispatch
  DispatchReason reason = DispatchReason::kReady;
  Nanos until = kNever;  // of a wait: ask again then, or when something is queued
};

/// When a bucket may go, and why; 0 for at once.
struct Due {
  Nanos at = 0;
  DispatchReason reason = DispatchReason::kReady;
};
Due due(const BucketState& bucket, const PolicyOptions& options, bool draining);

/// Work-conserving unless max_delay or company asks otherwise. A bucket may go where it is full, or has as many rows as
/// pay, its oldest request has waited max_delay, nobody is waited for, its headroom would reach past a deadline, or
/// `draining`. Of those that may go, the one whose head
/// has the earliest turn goes first, then the one whose head was queued first: an odd shape neither blocks the others
/// nor is forgotten.
Decision decide(std::span<const BucketState> buckets, Nanos now, const PolicyOptions& options, bool draining);

}  // namespace inferkit
