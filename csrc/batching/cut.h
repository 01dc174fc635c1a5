// What a batch leaves out, and whom, where deadlines press.
#pragma once
#include <cstdint>

#include "batching/cost_curve.h"
#include "platform/clock.h"
#include "platform/thread_pool.h"

namespace inferkit {

class Line;
class Request;

/// What a run of so many rows will take.
using RunCost = FunctionRef<Forecast(int64_t rows)>;

/// One decision about the next batch from a line. A pure function of the line, the time and the cost.
class Cut {
 public:
  /// Whether a batch of `few` rows does nearly as much in its time as one of `many`.
  static bool is_efficient(int64_t few, const Forecast& cost_of_few, int64_t many, const Forecast& cost_of_many);

  /// Nothing is computed that will be late by a known cost. A batch that would be late for some of its requests is cut
  /// shorter where that costs little: the smaller one is nearly as efficient, or all the others are in time as well.
  /// Else those few expire, as overload would otherwise shrink batches, and so throughput, until nobody is in time.
  Cut(const Line& line, int64_t max_rows, Nanos now, RunCost cost);

  int64_t max_rows() const { return max_rows_; }
  /// Whether a request of the line is to be left out, as this batch would be late for it.
  bool leaves_out(const Request& request) const;

 private:
  Nanos alone(int64_t rows) const;

  const Nanos now_;
  const RunCost cost_;
  const bool pressed_;  // others wait as well: who would be in time only with luck makes room
  int64_t max_rows_;
  Nanos late_;  // deadlines that the batch cannot keep
};

}  // namespace inferkit
