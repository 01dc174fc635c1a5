// What a batcher makes of what it learns: simulated time, the shipped scheduler.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <vector>

#include "batching/simulated_workers.h"
#include "test.h"

using namespace inferkit;

namespace {
constexpr Nanos kMicro = 1'000, kMilli = 1'000'000, kSecond = 1'000'000'000;
constexpr PaceOptions kLearns{.sizes = true, .company = true};

/// Requests come when `arrivals` says so, and whoever is answered may add others.
class Simulation {
 public:
  Simulation(std::function<double(double)> milliseconds, const SimulatedOptions& options)
      : cost_(std::move(milliseconds)), workers_(options) {}
  virtual ~Simulation() = default;

  void run_for(Nanos time) {
    while (now_ < time) {
      Nanos next = workers_.until();
      if (!arrivals_.empty()) next = std::min(next, arrivals_.begin()->first);
      if (!ends_.empty()) next = std::min(next, ends_.begin()->first);
      if (next == kNever) return;
      now_ = std::max(now_, next);
      for (; !arrivals_.empty() && arrivals_.begin()->first <= now_; arrivals_.erase(arrivals_.begin())) {
        const auto id = static_cast<uint64_t>(came_.size());
        came_.push_back(now_);
        workers_.come(now_, {&id, 1});
      }
      for (; !ends_.empty() && ends_.begin()->first <= now_; ends_.erase(ends_.begin())) {
        const SimulatedWorkers::Started batch = ends_.begin()->second;
        workers_.over(now_, batch.number);
        for (const uint64_t id : batch.requests) {
          took_.push_back(now_ - came_[id]);
          answered(now_);
        }
      }
      while (auto batch = workers_.take(now_)) {
        sizes_.push_back(batch->rows);
        ends_.emplace(now_ + static_cast<Nanos>(cost_(double(batch->rows)) * double(kMilli)), std::move(*batch));
      }
    }
  }

  /// Of the second half.
  double rows_per_batch() const { return mean_of_half(sizes_); }
  double latency() const { return mean_of_half(took_) * 1e-6; }
  double quantile(double q) const {
    std::vector<Nanos> sorted(took_.begin() + static_cast<std::ptrdiff_t>(took_.size() / 2), took_.end());
    std::sort(sorted.begin(), sorted.end());
    return double(sorted[static_cast<size_t>(q * double(sorted.size() - 1))]) * 1e-6;
  }
  size_t answers() const { return took_.size(); }
  PaceFigures figures() const { return workers_.figures(); }

 protected:
  virtual void answered(Nanos /*now*/) {}
  std::multimap<Nanos, int> arrivals_;

 private:
  static double mean_of_half(const std::vector<int64_t>& all) {
    double sum = 0;
    for (size_t i = all.size() / 2; i < all.size(); ++i) sum += double(all[i]);
    return sum / double(all.size() - all.size() / 2);
  }

  const std::function<double(double)> cost_;
  SimulatedWorkers workers_;
  Nanos now_ = 0;
  std::vector<Nanos> came_;
  std::multimap<Nanos, SimulatedWorkers::Started> ends_;
  std::vector<int64_t> sizes_, took_;
};

/// Clients that come back, one shortly after the other, when they have their answers.
class Closed : public Simulation {
 public:
  Closed(int clients, Nanos apart, std::function<double(double)> cost, PaceOptions pace, int workers = 1)
      : Simulation(std::move(cost), {.workers = workers, .pace = pace}), apart_(apart) {
    for (int i = 0; i < clients; ++i) answered(kMilli);
  }

 private:
  void answered(Nanos now) override {
    last_ = std::max(last_, now) + apart_;
    arrivals_.emplace(last_, 0);
  }

  const Nanos apart_;
  Nanos last_ = 0;
};

/// Those who come at random.
class Random : public Simulation {
 public:
  Random(double rate, Nanos time, std::function<double(double)> cost, PaceOptions pace, int workers = 1)
      : Simulation(std::move(cost), {.workers = workers, .pace = pace}) {
    std::mt19937_64 rng(17);
    for (double at = 1e6; at < double(time);) {
      arrivals_.emplace(static_cast<Nanos>(at), 0);
      at += std::exponential_distribution(rate * 1e-9)(rng);
    }
  }
};

}  // namespace

TEST(auto_waits_for_clients_that_come_back_together) {
  // Whatever their number, a run takes 5 ms; sixteen clients come back 20 us after each other.
  const auto cost = [](double) { return 5.0; };
  Closed plain(16, 20 * kMicro, cost, {}), learns(16, 20 * kMicro, cost, kLearns);
  plain.run_for(10 * kSecond);
  learns.run_for(10 * kSecond);
  std::cout << "  " << plain.answers() / 10 << " answers/s in batches of " << plain.rows_per_batch() << ", now "
            << learns.answers() / 10 << " in batches of " << learns.rows_per_batch() << "\n";
  CHECK(learns.rows_per_batch() > 15);
  CHECK(double(learns.answers()) > 1.6 * double(plain.answers()));
  CHECK(learns.latency() < plain.latency());
  CHECK(learns.figures().company >= 300 * kMicro && learns.figures().company <= kMilli);
}

TEST(auto_is_no_worse_for_who_comes_at_random) {
  const auto cost = [](double n) { return 4 + 0.05 * n; };
  for (const int workers : {1, 4}) {
    for (const double load : {0.3, 0.8, 3.0, 10.0}) {  // arrivals for each worker in the time of a run of one row
      const Nanos time = 30 * kSecond;
      const double rate = load * workers / 4e-3;
      Random plain(rate, time, cost, {}, workers), learns(rate, time, cost, kLearns, workers);
      plain.run_for(time);
      learns.run_for(time);
      std::cout << "  " << load << ": " << plain.latency() << " ms, now " << learns.latency() << "\n";
      CHECK(learns.latency() < 1.01 * plain.latency());
    }
  }
}

TEST(auto_takes_no_more_rows_than_pay) {
  // 2 ms a row, in any batch: who goes alone is answered sooner, and nobody later.
  const auto cost = [](double n) { return 2 * n; };
  const Nanos time = 60 * kSecond;
  Closed plain(32, 20 * kMicro, cost, {}), learns(32, 20 * kMicro, cost, kLearns);
  plain.run_for(time);
  learns.run_for(time);
  CHECK(learns.rows_per_batch() < 5);
  CHECK(double(learns.answers()) > 0.99 * double(plain.answers()));
  Random random(450, time, cost, {}), random_learns(450, time, cost, kLearns);
  random.run_for(time);
  random_learns.run_for(time);
  std::cout << "  at random: " << random.latency() << " ms, now " << random_learns.latency() << "\n";
  CHECK(random_learns.latency() < 0.9 * random.latency());
  CHECK_EQ(random_learns.answers(), random.answers());
}

TEST(auto_shares_what_has_come_among_workers) {
  const auto cost = [](double n) { return 2 * n; };
  Closed learns(64, 0, cost, kLearns, 4);
  learns.run_for(20 * kSecond);
  CHECK(double(learns.answers()) > 0.98 * 4 * 20'000 / 2);
}

TEST(auto_keeps_a_target) {
  // 5 ms and 0.05 ms a row, at random: 99% within 60 ms, with fewer and larger runs than without.
  const auto cost = [](double n) { return 5 + 0.05 * n; };
  const Nanos time = 60 * kSecond;
  for (const double rate : {60.0, 500.0, 4'000.0}) {
    PaceOptions aims = kLearns;
    aims.target = 60 * kMilli;
    Random plain(rate, time, cost, kLearns), kept(rate, time, cost, aims);
    plain.run_for(time);
    kept.run_for(time);
    std::cout << "  " << rate << "/s: 99% within " << plain.quantile(0.99) << " ms in batches of "
              << plain.rows_per_batch() << ", with a target of 60 within " << kept.quantile(0.99)
              << " ms in batches of " << kept.rows_per_batch() << "\n";
    CHECK(kept.quantile(0.99) <= 60);
    CHECK(kept.rows_per_batch() >= 0.99 * plain.rows_per_batch());
    CHECK(kept.figures().kept && kept.figures().expected <= 60 * kMilli);
  }
}

TEST(auto_keeps_a_target_by_smaller_batches) {
  // Bursts of 64 at once: as one batch they take 67 ms; in batches of 24, the first are answered in time.
  const auto cost = [](double n) { return 3 + 1.0 * n; };
  PaceOptions aims = kLearns;
  aims.target = 40 * kMilli;
  Random kept(250, 60 * kSecond, cost, aims);
  kept.run_for(60 * kSecond);
  CHECK(kept.figures().pays <= 16);
  CHECK(kept.quantile(0.9) <= 40);
}
