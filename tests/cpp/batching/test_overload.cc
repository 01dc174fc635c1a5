// More comes in than can be answered in time: simulated time, seeded arrivals, the real batcher.
#include <cmath>
#include <functional>
#include <mutex>
#include <random>
#include <thread>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {
constexpr Nanos kMilli = 1'000'000, kSecond = 1000 * kMilli;

/// What a run takes: a part that every run pays and one for each row, with noise and a slow run now and then.
struct Service {
  double base, per_row;  // milliseconds
  double of(double rows) const { return base + per_row * rows; }
};

/// Open loop: arrivals do not wait for answers. Whatever happens, happens at its time on a clock that only this moves:
/// a run moves it to its end, past the arrivals until then; where nothing runs, it jumps to the next arrival.
class OpenLoop {
 public:
  OpenLoop(Service service, Nanos deadline, BatcherOptions options, uint64_t seed, int64_t widths = 1)
      : OpenLoop(service, std::vector{deadline}, options, seed, widths) {}
  /// Each request draws one of the deadlines.
  OpenLoop(Service service, std::vector<Nanos> deadlines, BatcherOptions options, uint64_t seed, int64_t widths = 1)
      : rig({Shape::kFree, Shape::kFree}, options, clock_),
        service_(service),
        deadlines_(std::move(deadlines)),
        random_(seed),
        widths_(widths) {
    rig.rig.model->on_run = [this] { run(); };
  }

  /// Requests for so long, at `rate` a second.
  void load(double rate, Nanos time) {
    rate_ = rate;
    until_ = clock_.now() + time;
    next_ = clock_.now();
    schedule();
    first_ = kept_.size();
    offered_ = 0;
    offered_of_.assign(deadlines_.size(), 0);
    while (next_ != kNever) {
      {
        std::lock_guard lock(mutex_);  // the run that this starts waits for all of it
        clock_.advance(std::max<Nanos>(0, next_ - clock_.now()));
        arrive();
      }
      rest();
    }
    if (clock_.now() < until_) clock_.advance(until_ - clock_.now());
  }

  /// Of the last load: in time, offered, and computed for nobody.
  size_t offered() const { return offered_; }
  size_t in_time() const { return count(Phase::kResult); }
  size_t count(Phase phase) const {
    size_t n = 0;
    for (size_t i = first_; i < kept_.size(); ++i) n += kept_[i]->phase() == phase;
    return n;
  }
  /// Refused as they would have made others late, and as what they had was kept in reserve.
  size_t would_overtake() const { return would_overtake_; }
  size_t reserved() const { return reserved_; }
  size_t admitted() const { return kept_.size() - first_; }
  /// In time, of those offered with deadline number `which`.
  double share_of(size_t which) const {
    size_t n = 0;
    for (size_t i = first_; i < kept_.size(); ++i) n += kept_[i]->phase() == Phase::kResult && of_[i] == which;
    return double(n) / double(offered_of_[which]);
  }

  void rest() {
    for (;;) {
      const BatcherStats s = batcher().stats();
      if (s.in_flight == 0 && s.queue_depth == 0) return;
      std::this_thread::yield();
    }
  }
  Batcher& batcher() { return *rig.rig.batcher; }
  double slower = 1;
  std::function<size_t(size_t)> client_of;  // whose those with deadline number `which` are; null: no clients
  uint64_t slow_one_of = 0;                 // of so many runs one takes four times as long

 private:
  struct Held {
    Held(Shape shape, BatcherOptions options, const Clock& clock) : rig(options, shape, clock) {}
    Rig rig;
  };

  void schedule() {
    next_ += static_cast<Nanos>(std::exponential_distribution(rate_)(random_) * 1e9);
    if (next_ >= until_) next_ = kNever;
  }

  void arrive() {
    ++offered_;
    const size_t which = deadlines_.size() == 1 ? 0 : random_() % deadlines_.size();
    const Nanos deadline = deadlines_[which] == kNever ? kNever : clock_.now() + deadlines_[which];
    ++offered_of_[which];
    const int64_t width = 1 + static_cast<int64_t>(random_() % static_cast<uint64_t>(widths_));
    try {
      SubmitOptions options{.deadline = deadline};
      if (client_of) options.client = batcher().client(std::to_string(client_of(which)));
      kept_.push_back(rig.rig.submit(std::vector<float>(static_cast<size_t>(width), 1), {width}, options));
      of_.push_back(which);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::kDeadline);
      const std::string_view why = error.what();
      would_overtake_ += why.find("go before requests that have been admitted") != why.npos;
      reserved_ += why.find("kept in reserve") != why.npos;
    }
    schedule();
  }

  void run() {
    std::lock_guard lock(mutex_);
    const double noise = std::exp(std::normal_distribution(0.0, 0.05)(random_)) * (random_() % 200 ? 1 : 3) *
                         (slow_one_of && random_() % slow_one_of == 0 ? 4 : 1);
    const auto rows = double(rig.rig.model->batches().back()[0]);
    const Nanos end = clock_.now() + static_cast<Nanos>(service_.of(rows) * noise * slower * double(kMilli));
    while (next_ < end) {
      clock_.advance(std::max<Nanos>(0, next_ - clock_.now()));
      arrive();
    }
    clock_.advance(end - clock_.now());
  }

  std::mutex mutex_;
  ManualClock clock_{kSecond};
  Held rig;
  const Service service_;
  const std::vector<Nanos> deadlines_;
  std::mt19937_64 random_;
  const int64_t widths_;
  double rate_ = 1;
  Nanos next_ = kNever, until_ = 0;
  std::vector<RequestRef> kept_;
  std::vector<size_t> of_;  // the number of each one's deadline
  size_t first_ = 0, offered_ = 0;
  std::vector<size_t> offered_of_;
  size_t would_overtake_ = 0, reserved_ = 0;
};

void check_goodput(Service service, Nanos deadline, int64_t max_batch, int64_t widths = 1) {
  // The most that can be answered in time: of the batches that fit into a deadline, the most efficient.
  double capacity = 0;
  for (int64_t n = 1; n <= max_batch && service.of(double(n)) * double(kMilli) < 0.6 * double(deadline); ++n) {
    capacity = std::max(capacity, double(n) / service.of(double(n)) * 1e3);
  }
  for (const double load : {0.8, 1.2, 2.0, 5.0, 10.0}) {
    // Without a bound: as long as nothing is known, more come than the queue would hold.
    OpenLoop loop(service, deadline, {.max_batch_size = max_batch, .max_queue_size = 0}, 42, widths);
    loop.load(load * capacity, kSecond);  // learns
    const Nanos time = 10 * kSecond;
    loop.load(load * capacity, time);
    const double goodput = double(loop.in_time()) / (double(time) * 1e-9) / capacity;
    const double of_admitted = double(loop.in_time()) / double(loop.admitted());
    std::cout << "  " << service.base << "+" << service.per_row << "n ms, " << deadline / kMilli << " ms, " << load
              << " of " << capacity << "/s: " << goodput << " in time; of those admitted " << of_admitted << "\n";
    CHECK(goodput >= (load < 1 ? 0.95 * load : 0.9));
    CHECK(of_admitted >= (widths == 1 ? 0.97 : 0.99));
  }
}
}  // namespace

TEST(overload_of_a_model_whose_rows_cost_alike) { check_goodput({0.2, 2.4}, 150 * kMilli, 64); }
TEST(overload_of_a_model_that_gains_from_batches) { check_goodput({5, 0.1}, 60 * kMilli, 64); }
TEST(overload_of_many_shapes) { check_goodput({0.2, 2.4}, 150 * kMilli, 64, 5); }

TEST(overload_by_one_client_is_that_clients) {
  // Nine clients send 0.08 of the capacity each, a tenth 3.3 times all of it, all with the same deadline. By turns, the
  // nine are refused as often as the tenth.
  const Service service{0.2, 2.4};
  constexpr double kCapacity = 400;
  for (const bool named : {false, true}) {
    OpenLoop loop(service, std::vector<Nanos>(50, 100 * kMilli), {.max_batch_size = 16}, 42);
    if (named) loop.client_of = [](size_t which) { return which < 9 ? which + 1 : 0; };
    loop.load(0.5 * kCapacity, kSecond);
    const Nanos time = 10 * kSecond;
    loop.load(4 * kCapacity, time);
    double worst = 1;
    for (size_t which = 0; which < 9; ++which) worst = std::min(worst, loop.share_of(which));
    const double goodput = double(loop.in_time()) / (double(time) * 1e-9) / kCapacity;
    std::cout << "  " << (named ? "by client: " : "by turns: ") << goodput << " in time; of the worst of nine " << worst
              << ", of the tenth " << loop.share_of(9) << "; of those admitted "
              << double(loop.in_time()) / double(loop.admitted()) << "\n";
    if (named) {
      CHECK(goodput >= 0.9);
      CHECK(worst >= 0.9);
    }
  }
}

TEST(overload_of_mixed_deadlines) {
  // The earliest deadline goes first, and as many are in time as where the first in is the first out, but not only
  // those that have the most time. What is not to be in time is dropped before a run, so nothing is computed for
  // nobody.
  for (const Service service : {Service{0.2, 2.4}, Service{5, 0.1}}) {
    const double capacity = service.base < 1 ? 400 : 5600;
    for (const double load : {0.8, 1.2, 2.0, 5.0}) {
      const std::vector mix{50 * kMilli, 500 * kMilli};
      for (const bool by_deadline : {false, true}) {
        OpenLoop loop(service, mix, {.max_batch_size = 64, .ageing = by_deadline ? kAgeing : 0, .max_queue_size = 0},
                      42);
        loop.load(load * capacity, kSecond);
        const Nanos time = 10 * kSecond;
        loop.load(load * capacity, time);
        const double goodput = double(loop.in_time()) / (double(time) * 1e-9) / capacity;
        const double of_admitted = double(loop.in_time()) / double(loop.admitted());
        std::cout << "  " << service.base << "+" << service.per_row << "n ms, " << load << " of the capacity, "
                  << (by_deadline ? "earliest deadline: " : "first in first out: ") << goodput
                  << " in time; of those with 50 ms " << loop.share_of(0) << ", with 500 ms " << loop.share_of(1)
                  << "; of those admitted " << of_admitted << "\n";
        CHECK(goodput >= (load < 1 ? 0.97 * load : 0.93));
        CHECK(of_admitted >= 0.97);
        CHECK_EQ(loop.would_overtake() > 0, by_deadline && load > 1);
        if (load > 1) CHECK(loop.reserved() > 0);
        if (by_deadline && load <= 2) CHECK(loop.share_of(0) >= 0.15 && loop.share_of(1) >= 0.7);
      }
    }
  }
}

TEST(overload_passes_within_one_deadline) {
  const Nanos deadline = 150 * kMilli;
  OpenLoop loop({0.2, 2.4}, deadline, {.max_batch_size = 64}, 7);
  loop.load(400, kSecond);
  loop.load(2000, 2 * kSecond);
  loop.load(200, deadline);
  loop.load(200, 3 * kSecond);
  CHECK(double(loop.in_time()) >= 0.98 * double(loop.offered()));
}

TEST(overload_by_a_slow_phase_is_found_to_be_over) {
  const Nanos deadline = 150 * kMilli;
  OpenLoop loop({0.2, 2.4}, deadline, {.max_batch_size = 64}, 7);
  loop.load(100, kSecond);
  loop.slower = 100;  // 260 ms for one: nobody can be in time
  loop.load(100, 20 * kSecond);
  CHECK(loop.in_time() <= 2);
  CHECK(loop.admitted() < loop.offered() / 2);  // most are told at once
  loop.slower = 1;
  loop.load(100, 1200 * kMilli);  // four of those long runs, and a few to learn from
  loop.load(100, 3 * kSecond);
  CHECK(double(loop.in_time()) >= 0.98 * double(loop.offered()));
}

TEST(overload_is_not_seen_in_slow_runs) {
  // Every eighth run takes four times as long: who has time for several of those is neither refused nor dropped.
  OpenLoop loop({0.2, 2.4}, 200 * kMilli, {.max_batch_size = 16}, 7);
  loop.slow_one_of = 8;
  loop.load(150, kSecond);
  loop.load(150, 10 * kSecond);
  CHECK(double(loop.in_time()) >= 0.999 * double(loop.offered()));
}

TEST(overload_is_nobodys_without_a_deadline) {
  OpenLoop loop({0.2, 2.4}, kNever - 100 * kSecond, {.max_batch_size = 64, .max_queue_size = 0}, 7);
  loop.load(800, kSecond);
  CHECK_EQ(loop.in_time(), loop.offered());
}
