// Whether padding pays: what batches that are filled up cost, beside their requests in batches of their own lengths.
#pragma once
#include <cstdint>
#include <map>

#include "platform/clock.h"
#include "platform/mutex.h"

namespace inferkit {

/// A run of requests that are padded to a length, or would be.
struct PadRun {
  int64_t padded = 0;  // that length
  int64_t ran = 0;     // the length that ran: that one, or a shorter one, of requests that were not padded
  bool first = false;  // of its shape, so that it compiled a plan, too
  int64_t requests = 0;
  uint64_t own = 0;  // elements that the requests brought
  uint64_t all = 0;  // elements that ran
  Nanos took = 0;
  Nanos row_took = 0;         // by one row of the length that ran; 0 where none has
  uint64_t row_elements = 0;  // of one row of the length that ran
};

/// For each length, what an element of a request costs. A wider batch is worth its padding where a row costs less in
/// it; where a model computes as long for each row of a batch as for one alone, padding only adds to the work. So once
/// enough batches of a length have run, they are compared with runs of single requests of their mean length, read
/// between those of this length and of a shorter one: where even these would cost less, requests are no longer padded
/// to it. From then on the comparison is with what their own batches do cost. Where these turn out to cost more,
/// padding begins again, for longer each time; and after a while a few padded batches run in any case, as the load may
/// have changed. As long as requests mostly run alone, nothing is given up: they are in nobody's way, and each length
/// of their own would need a plan. Thread-safe.
class PadCost {
 public:
  static constexpr double kWorth = 1.05;         // padded batches that cost that many times as much are given up
  static constexpr int kRuns = 8;                // padded ones that are looked at together
  static constexpr int kCompany = 2;             // requests in them, on average, that make it worth a look
  static constexpr int64_t kRequests = 32;       // that ran as they came, the same
  static constexpr int64_t kOff = 4096;          // requests that are not padded before it is tried again
  static constexpr int64_t kMostHeld = 1 << 20;  // requests that are padded, at most, before it is given up again

  /// Asked for each request that is shorter than the length. Whether it is to run as it came.
  bool is_off(int64_t padded) noexcept;
  /// `padded` is one of those that requests are padded to: of these there are not many.
  void learn(const PadRun& run) noexcept;
  /// Another model runs.
  void clear() noexcept;

  struct Figure {
    double ratio = 0;  // padded to as they came, in what an element of a request costs
    bool off = false;
  };
  /// Of the lengths of which it is known.
  std::map<int64_t, Figure> figures() const;

 private:
  struct Window {
    double took = 0, own = 0, all = 0;
    int runs = 0;
    int64_t requests = 0;

    void add(const PadRun& run);
    double cost() const { return own > 0 ? took / own : 0; }
  };
  struct Length {
    bool off = false;
    int64_t left = 0;  // requests until this may change: while it is off, until it is tried; else, until it is given up
    int64_t hold = kOff;
    Window padded{}, own{};
    double padded_cost = 0, own_cost = 0;  // of the last whole windows; 0: not known
    double ratio = 0;
    double row_took = 0, row_elements = 0;  // of one row of that length
  };
  using Lengths = std::map<int64_t, Length>;
  void learn_locked(const PadRun& run) REQUIRES(mutex_);
  double estimate(Lengths::const_iterator at, double part) const REQUIRES(mutex_);

  mutable Mutex mutex_;  // held for a look, by requests that would be padded and by batches of theirs
  Lengths lengths_ GUARDED_BY(mutex_);
};

}  // namespace inferkit
