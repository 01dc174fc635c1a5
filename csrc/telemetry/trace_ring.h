// The last few thousand things that happened, always recorded: what a trace is made from when somebody asks.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "platform/clock.h"

namespace inferkit {

/// One request or one batch, at its end. `kind`, `outcome` and `reason` are the recorder's own codes.
struct TraceEntry {
  static constexpr uint16_t kMostTags = (1 << 11) - 1;

  uint64_t id = 0;
  uint64_t batch_id = 0;
  Nanos enqueued = 0, dequeued = 0, started = 0, finished = 0, delivered = 0;  // 0: has not happened
  uint32_t thread = 0;                                                         // the kernel's id of who ended it
  uint32_t rows = 0, batch_rows = 0;
  uint8_t kind = 0, outcome = 0, reason = 0;  // below 2, below 16, any
  int8_t priority = 0;                        // of a batch: how much of what it was given was padding, in percent
  uint16_t tags = 0;  // the number of the request's set of them, at most kMostTags; 0: it has none
};

/// An entry as it comes back.
struct TraceRecord : TraceEntry {
  static constexpr size_t kNameBytes = 48;

  uint64_t sequence = 0;       // from 1 on, in the order in which the entries were begun
  char name[kNameBytes] = {};  // the caller's own id, cut to fit; not terminated where it fills the array

  std::string_view name_view() const;
};

/// Lock-free, fixed in size, for any number of writers and readers. A record costs two atomic operations and two cache
/// lines; the oldest is overwritten. Each slot is a sequence lock: its version is even and names the record when it is
/// at rest, odd while somebody writes, and whoever finds it odd gives up (the record is dropped, the reader skips it),
/// so nobody ever waits.
class TraceRing {
 public:
  /// Rounded up to a power of two; 0 for a ring that records nothing. 128 bytes each.
  explicit TraceRing(size_t capacity);
  ~TraceRing();

  bool enabled() const { return enabled_.load(std::memory_order_relaxed); }
  /// Stays off where the capacity is 0.
  void set_enabled(bool on) { enabled_.store(on && slots_, std::memory_order_relaxed); }

  /// Returns the sequence number, 0 where the entry was dropped or the ring is off.
  uint64_t add(const TraceEntry& entry, std::string_view name);
  /// Writes down the delivery of a record, unless it has been overwritten.
  void deliver(uint64_t sequence, Nanos at);

  /// Those after `sequence`, oldest first. Allocates.
  std::vector<TraceRecord> read(uint64_t after = 0) const;
  size_t capacity() const { return slots_ ? mask_ + 1 : 0; }
  uint64_t added() const { return head_.load(std::memory_order_relaxed); }
  uint64_t dropped() const { return dropped_.load(std::memory_order_relaxed); }

 private:
  struct Slot;
  const size_t mask_;
  const std::unique_ptr<Slot[]> slots_;
  std::atomic<bool> enabled_;
  alignas(64) std::atomic<uint64_t> head_{0};
  std::atomic<uint64_t> dropped_{0};
};

}  // namespace inferkit
