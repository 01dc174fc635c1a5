#include "batching/target.h"

#include "batching/pays.h"

namespace inferkit {
namespace {

constexpr double kUsed = 0.9;    // of a target: runs are not all alike
constexpr double kAhead = 1.15;  // times what comes is what a worker has to keep up with
constexpr double kSaves = 1.1;   // times the least work of a row is little enough
constexpr uint64_t kAnswers = 200;
constexpr double kLate = 0.01, kHardlyLate = 0.004;

}  // namespace

double TargetWatch::trust() noexcept {
  const uint64_t answers = answers_.load(std::memory_order_relaxed), late = late_.load(std::memory_order_relaxed);
  if (answers - answers_before_ < kAnswers) return trust_;
  const double share = double(late - late_before_) / double(answers - answers_before_);
  answers_before_ = answers;
  late_before_ = late;
  if (share > kLate) trust_ = std::max(0.1, 0.8 * trust_);
  if (share < kHardlyLate) trust_ = std::min(1.0, 1.02 * trust_);
  return trust_;
}

TargetPlan plan_for(Nanos target, double rate, int workers, int64_t most, Nanos longest, RunCost cost) {
  TargetPlan out;
  if (!cost(1).known && !cost(most).known) return out;
  const double budget = kUsed * double(target), each_of = 1 + 1.0 / workers;  // its own run, and a part of another's
  const auto work = [&](int64_t rows) { return double(cost(rows).typical + kHandOver) / double(rows); };
  const auto latency = [&](int64_t rows) { return each_of * double(cost(rows).high); };
  const auto keeps_up = [&](int64_t rows) { return kAhead * rate * work(rows) * 1e-9 <= workers; };
  int64_t fits = 0, needed = 0, cheapest = 1;
  for_each_size(most, [&](int64_t rows) {
    if (latency(rows) <= budget) fits = rows;
    if (needed == 0 && keeps_up(rows)) needed = rows;
    if (work(rows) < work(cheapest)) cheapest = rows;
  });
  out.kept = needed > 0 && fits >= needed;
  out.rows = out.kept ? fits : needed > 0 ? needed : cheapest;

  // How many come while a run lasts, and so go together anyway; then how many more are worth waiting for.
  const auto within = [&](double nanos) { return rate * nanos * 1e-9; };
  double usual = 1;
  for (int i = 0; i < 8; ++i) {
    const auto rows = static_cast<int64_t>(usual + 0.5);
    usual = std::clamp(within(double(cost(rows).typical)) / workers, 1.0, double(out.rows));
  }
  // Of arrivals at random, hardly ever more than so many.
  const auto many = [&](double rows) {
    return std::min(out.rows, static_cast<int64_t>(std::ceil(rows + 2.3 * std::sqrt(rows))));
  };
  const auto now = static_cast<int64_t>(usual + 0.5);
  double wait = 0;
  if (out.kept && work(now) > kSaves * work(out.rows)) {
    int64_t enough = out.rows;
    for_each_size(out.rows, [&](int64_t rows) {
      if (enough == out.rows && work(rows) <= kSaves * work(out.rows)) enough = rows;
    });
    const double left = budget - latency(many(double(enough)));
    wait = std::min({left, double(longest), double(enough - now) / std::max(rate, 1e-3) * 1e9});
    const double with = usual + within(wait);
    if (within(wait) < 1 || work(now) < kSaves * work(static_cast<int64_t>(std::min(with, double(out.rows))))) wait = 0;
  }
  out.delay = static_cast<Nanos>(std::max(0.0, wait));
  out.expected = out.delay + static_cast<Nanos>(latency(many(usual + within(std::max(0.0, wait)))));
  return out;
}

}  // namespace inferkit
