#include "batching/cut.h"

#include <algorithm>

#include "batching/line.h"
#include "batching/request.h"

namespace inferkit {

/// When a run of so many rows that began now would be over, in all likelihood; now where that is not known.
Nanos Cut::alone(int64_t rows) const {
  const Forecast run = cost_(rows);
  return !run.known ? now_ : now_ + (pressed_ ? run.likely : run.typical);
}

bool Cut::is_efficient(int64_t few, const Forecast& cost_of_few, int64_t many, const Forecast& cost_of_many) {
  return 4 * double(few) * double(cost_of_many.typical) >= 3 * double(many) * double(cost_of_few.typical);
}

bool Cut::leaves_out(const Request& request) const {
  return request.deadline <= late_ || (request.deadline != kNever && request.deadline <= alone(request.rows));
}

Cut::Cut(const Line& line, int64_t max_rows, Nanos now, RunCost cost)
    : now_(now), cost_(cost), pressed_(line.size() > 1), max_rows_(max_rows), late_(now) {
  if (now + cost(std::min(line.rows(), max_rows)).likely < line.earliest_deadline()) return;

  // The longest prefix that is in time for all in it, and what the whole batch would hold.
  int64_t rows = 0, first = 0, fitting = 0;
  Nanos tightest = kNever, tightest_of_rest = kNever;
  for (const Request* r = line.first(); r && rows + r->rows <= max_rows; r = Line::next(*r)) {
    if (r->phase() != Phase::kQueued || leaves_out(*r)) continue;
    if (rows == 0) first = r->rows;
    rows += r->rows;
    tightest = std::min(tightest, r->deadline);
    tightest_of_rest = std::min(tightest_of_rest, r->deadline);
    if (now + cost(rows).likely < tightest) {
      fitting = rows;
      tightest_of_rest = kNever;
    }
  }
  if (fitting == rows) return;
  const Forecast all = cost(rows);
  if (fitting == 0) {  // not even the first, as far as anybody can tell
    if (all.known) {
      late_ = now + all.likely;
    } else {
      max_rows_ = first;  // a short run that tells more
    }
    return;
  }
  const Forecast few = cost(fitting);
  const bool rest_in_time = now + few.likely + cost(rows - fitting).likely < tightest_of_rest;
  if (is_efficient(fitting, few, rows, all) || rest_in_time || !all.known) {
    max_rows_ = fitting;
  } else {
    late_ = now + all.likely;
  }
}

}  // namespace inferkit
