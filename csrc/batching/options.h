// What a Batcher is told, once.
#pragma once
#include <cstdint>
#include <vector>

#include "base/output_checks.h"
#include "base/validation.h"
#include "batching/client.h"
#include "batching/pace.h"
#include "batching/padding.h"
#include "batching/tags.h"
#include "batching/turn.h"
#include "platform/clock.h"

namespace inferkit {

struct BatcherOptions {
  int64_t max_batch_size = 64;     // rows
  int64_t max_batch_elements = 0;  // of the largest input, what is padded included; 0: any number
  Nanos max_delay = 0;             // how long the oldest request may wait for company
  Nanos ageing = kAgeing;          // how much longer waiting makes up for a level of priority; kNever: nothing does
  size_t max_queue_size = 1024;    // requests that may wait; 0: any number
  int workers = 1;
  double weight = 1;             // among batchers, where there is a limit on the cores of all
  int max_concurrent = 0;        // batches that may run at once, callers' included; 0: as many as workers
  bool wait_when_full = false;   // else a submission to a full queue is refused
  Nanos full_timeout = kNever;   // how long it waits
  size_t max_waiting = 1024;     // submissions that may wait at once, more are refused; 0: any number
  bool caller_runs = true;       // a caller that finds the batcher idle runs its request itself
  bool isolate_failures = true;  // the requests of a failed batch run again: see BatchRun::run
  /// An event loop's thread runs batches of at most this predicted duration itself; 0: never. Handing over costs two
  /// wake-ups, 14 us at the median and about 90 us at p99, so up to there running it is the shorter pause even for
  /// the loop's other tasks.
  Nanos inline_limit = 100'000;
  size_t trace_size = 4096;             // requests and batches that the trace remembers; 0: none
  ClientTable::Configured clients{};    // by name
  ClientOptions default_client{};       // of all other names
  size_t max_tag_sets = 100;            // that are told apart, at most TagTable::kMost
  std::vector<InputChecks> inputs{};    // one for each input; empty: the default ones
  std::vector<OutputChecks> outputs{};  // one for each output; empty: no checks
  PadOptions pad{};
  bool coalesce = false;         // equal requests that are under way at once are computed once
  size_t result_cache = 0;       // bytes of answers that are kept for equal requests; 0: none are
  bool cache_callables = false;  // those of callables, too
  PaceOptions pace{};            // what is learnt of how to batch
};

}  // namespace inferkit
