// The requests of one layout that wait.
#pragma once
#include "batching/line.h"
#include "batching/pairing_heap.h"
#include "batching/policy.h"

namespace inferkit {

class Queue;
struct Strand;

/// Lives in its layout, so that a request finds it without a search; the lock of the queue that it is in guards it.
struct Bucket : Line {
  enum class Filed : uint8_t { kNowhere, kReady, kLater };

  BucketState state() const;

  const Queue* queue = nullptr;  // that it is in: null where it holds no request
  Bucket* next = nullptr;        // of all in that queue
  Bucket* previous = nullptr;

  Strand* strands = nullptr;  // of the requests that have a client: see fair.h
  size_t members = 0;         // those requests

  // Under which keys it stands in one of the queue's heaps, and with what headroom they were found.
  Filed filed = Filed::kNowhere;
  Nanos headroom = 0;
  Nanos delay = -1;    // with which its due time was found: see BucketState
  Nanos turn = 0;      // of who goes first
  uint64_t order = 0;  // the same's
  Nanos due = 0;
  HeapLinks<Bucket> heap;
};

}  // namespace inferkit
