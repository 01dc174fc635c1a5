#include "batching/pays.h"

#include <algorithm>
#include <limits>

namespace inferkit {
namespace {

// A size is enough where a row costs no more than so many times what it costs at best; and it stays for up to so many.
constexpr double kNear = 1.02, kStays = 1.05;

double of_a_row(const Forecast& run, int64_t rows) { return double(run.typical + kHandOver) / double(rows); }

}  // namespace

int64_t rows_that_pay(int64_t most, int64_t before, RunCost cost) {
  double best = std::numeric_limits<double>::infinity();
  int64_t largest = 0;
  for_each_size(most, [&](int64_t rows) {
    const Forecast run = cost(rows);
    if (!run.settled) return;
    best = std::min(best, of_a_row(run, rows));
    largest = rows;
  });
  int64_t enough = most, least = most;
  for_each_size(most, [&](int64_t rows) {
    const Forecast run = cost(rows);
    if (!run.settled || rows >= largest) return;  // nobody knows whether more than the largest would be better
    const double each = of_a_row(run, rows);
    if (each <= kStays * best) least = std::min(least, rows);
    if (each <= kNear * best) enough = std::min(enough, rows);
  });
  return std::clamp(before, least, enough);
}

int64_t rows_to_try(int64_t most, int64_t pays, RunCost cost) {
  for (int64_t rows = pays / 4; rows > 0; rows /= 4) {
    if (!cost(rows).settled) return rows;
  }
  return pays < most ? std::min(most, 2 * pays) : 0;
}

}  // namespace inferkit
