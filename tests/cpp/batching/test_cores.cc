// Models that share the cores of the process: CoreShare as the pure class that it is, then batchers under a limit.
#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "batching/cores.h"
#include "batching/fake_runner.h"
#include "comes_true.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

/// As batchers with one worker each, which always have work: begin() asks, and over() ends a run and asks again.
struct Shared {
  explicit Shared(int limit) { share.set_limit(limit); }
  ~Shared() {
    for (auto& account : accounts) share.leave(*account);
  }
  CoreShare::Account& join(double weight = 1) {
    accounts.push_back(std::make_unique<CoreShare::Account>(weight));
    share.join(*accounts.back());
    return *accounts.back();
  }
  bool begin(CoreShare::Account& of, double expected = 1, int cores = 1) {
    return share.take(of, 0, cores, expected, true) > 0;
  }
  /// A run is over that took so long, where 1 was expected. Whoever runs next.
  CoreShare::Account* over(CoreShare::Account& of, double nanos = 1) {
    share.settle(of, nanos, 1);
    if (share.take(of, 1, 1, 1, true) > 0) return &of;
    CoreShare::Account* next = share.grant();
    if (next) share.take(*next, 0, 1, 1, false);
    return next;
  }

  CoreShare share;
  std::vector<std::unique_ptr<CoreShare::Account>> accounts;
};

/// The process's limit, for one test.
struct Limit {
  explicit Limit(int cores) { Cores::process().set_limit(cores); }
  ~Limit() { Cores::process().set_limit(0); }
};

}  // namespace

TEST(core_share_goes_by_the_weights) {
  Shared s(1);
  CoreShare::Account &a = s.join(1), &b = s.join(3), &c = s.join(6);
  CHECK(s.begin(a) && !s.begin(b) && !s.begin(c));
  CoreShare::Account* runs = &a;
  std::array<int, 3> count{};
  for (int i = 0; i < 1000; ++i) {
    ++count[runs == &a ? 0 : runs == &b ? 1 : 2];
    runs = s.over(*runs);
  }
  CHECK(std::abs(count[0] - 100) <= 2 && std::abs(count[1] - 300) <= 2 && std::abs(count[2] - 600) <= 2);
  CHECK_EQ(s.share.in_use(), 1);
}

TEST(core_share_goes_by_time_and_not_by_runs) {
  Shared s(1);
  CoreShare::Account &heavy = s.join(), &light = s.join();
  CHECK(s.begin(heavy) && !s.begin(light));
  CoreShare::Account* runs = &heavy;
  double of_heavy = 0, of_light = 0;
  for (int i = 0; i < 2000; ++i) {
    const double nanos = runs == &heavy ? 40 : 1;
    (runs == &heavy ? of_heavy : of_light) += nanos;
    runs = s.over(*runs, nanos);
  }
  CHECK(std::abs(of_heavy - of_light) <= 80);
}

TEST(core_share_saves_no_credit_up) {
  Shared s(1);
  CoreShare::Account &busy = s.join(), &idle = s.join();
  CHECK(s.begin(busy));
  for (int i = 0; i < 1000; ++i) CHECK(s.over(busy) == &busy);
  // It comes, has its turn next, and then takes turns.
  CHECK(!s.begin(idle));
  CoreShare::Account* runs = &busy;
  std::array<int, 2> count{};
  for (int i = 0; i < 20; ++i) {
    runs = s.over(*runs);
    ++count[runs == &idle];
    if (i == 0) CHECK(runs == &idle);
  }
  CHECK(std::abs(count[0] - count[1]) <= 1);
}

TEST(core_share_has_no_debt_for_what_nobody_else_wanted) {
  Shared s(2);
  CoreShare::Account &greedy = s.join(), &other = s.join(), &late = s.join();
  CHECK(s.begin(greedy) && s.begin(other));
  for (int i = 0; i < 50; ++i) {  // side by side, and nobody ever waits
    CHECK(s.over(greedy, 1000) == &greedy);
    CHECK(s.over(other, 1) == &other);
  }
  CHECK(!s.begin(late));
  CHECK(s.over(greedy, 1000) == &late);
  std::array<int, 3> count{};
  CoreShare::Account* runs = &late;
  for (int i = 0; i < 30; ++i) {  // the core that `other` does not have
    runs = s.over(*runs, 1000);
    ++count[runs == &greedy ? 0 : runs == &late ? 1 : 2];
  }
  CHECK(count[0] >= 14 && count[1] >= 14);
}

TEST(core_share_never_gives_more_than_the_limit_and_starves_no_wide_run) {
  Shared s(4);
  CoreShare::Account &narrow = s.join(), &also = s.join(), &wide = s.join();
  for (int i = 0; i < 3; ++i) CHECK(s.begin(narrow));
  CHECK(s.begin(also));
  CHECK(!s.begin(wide, 1, 16));
  CHECK_EQ(wide.wanted, 4);
  for (int i = 1; i < 4; ++i) {
    CHECK(s.over(narrow) == nullptr);  // it is not overtaken, and there is not yet room
    CHECK_EQ(s.share.in_use(), 4 - i);
    s.share.forget(narrow);
  }
  s.share.give_back(also, 1);
  CHECK(s.share.grant() == &wide);
  CHECK_EQ(s.share.in_use(), 4);
  CHECK_EQ(s.share.take(wide, 0, 16, 1, false), 4);
  CHECK(!s.begin(also));
  s.share.give_back(wide, 4);
  CHECK(s.share.grant() == &also);
}

TEST(core_share_takes_back_what_nobody_comes_for) {
  Shared s(1);
  CoreShare::Account &a = s.join(), &b = s.join(), &c = s.join();
  CHECK(s.begin(a) && !s.begin(b) && !s.begin(c));
  s.share.give_back(a, 1);
  CHECK(s.share.grant() == &b);
  CHECK(s.share.grant() == nullptr);
  CHECK(!s.begin(a));  // b's turn it is, whether it has come or not
  s.share.forget(b);
  CHECK(s.share.grant() == &c);
  s.share.leave(c);
  CHECK(s.share.grant() == &a);
  s.share.join(c);
}

TEST(core_share_stands_any_order_of_calls) {
  std::mt19937 random(3);
  const auto pick = [&](int n) { return static_cast<int>(random() % unsigned(n)); };
  Shared s(3);
  for (int i = 0; i < 5; ++i) s.join(0.5 + i);
  std::array<int, 5> holds{};
  for (int step = 0; step < 20000; ++step) {
    const int i = pick(5);
    CoreShare::Account& a = *s.accounts[size_t(i)];
    const int cores = 1 + pick(5);
    switch (pick(6)) {
      case 0:
      case 1:
        holds[size_t(i)] += s.share.take(a, 0, cores, pick(100), pick(2) == 0);
        break;
      case 2:
        if (holds[size_t(i)] == 0) break;
        s.share.settle(a, pick(100), pick(100));
        holds[size_t(i)] = s.share.take(a, holds[size_t(i)], cores, pick(100), pick(2) == 0);
        break;
      case 3:
        s.share.give_back(a, std::exchange(holds[size_t(i)], 0));
        break;
      case 4:
        s.share.forget(a);
        break;
      default:
        s.share.set_limit(1 + pick(4));
    }
    while (s.share.grant()) {
    }
    int in_use = 0;
    for (size_t k = 0; k < 5; ++k) {
      const CoreShare::Account& of = *s.accounts[k];
      CHECK_EQ(of.held, holds[k] + of.granted);
      CHECK(of.granted == 0 || of.wanted == 0);
      in_use += of.held;
    }
    CHECK_EQ(s.share.in_use(), in_use);
  }
  for (size_t k = 0; k < 5; ++k) s.share.give_back(*s.accounts[k], holds[k]);
}

TEST(core_delay_is_what_batches_have_waited) {
  CoreDelay delay;
  CHECK_EQ(delay.expected(0, true, 0).likely, 0);  // nothing is known
  Nanos now = 0;
  for (int i = 0; i < 50; ++i) delay.learn(0, now += 1'000'000);
  CHECK_EQ(delay.expected(0, true, now).likely, 0);
  for (int i = 0; i < 50; ++i) delay.learn(10'000'000, now += 20'000'000);
  const CoreWait steady = delay.expected(0, true, now);
  CHECK(std::abs(steady.typical - 10'000'000) < 100'000 && std::abs(steady.likely - 10'000'000) < 500'000);
  // Between 0 and 20 ms in turns: the same mean, and a worst case that covers them.
  for (int i = 0; i < 100; ++i) delay.learn(i % 2 ? 20'000'000 : 0, now += 20'000'000);
  const CoreWait uneven = delay.expected(0, true, now);
  CHECK(std::abs(uneven.typical - 10'000'000) < 2'000'000 && uneven.likely >= 20'000'000);
  // Who waits already for longer than that, waits for at least as long.
  CHECK_EQ(delay.expected(200'000'000, true, now).typical, 200'000'000);
  CHECK_EQ(delay.expected(200'000'000, true, now).likely, 200'000'000);
  // Nobody else has cores: true until a while later, however few have come meanwhile.
  CHECK(delay.expected(0, false, now).typical > 0);
  CHECK_EQ(delay.expected(0, false, now + 1'000'000'000).likely, 0);
  CHECK(delay.expected(0, true, now + 1'000'000'000).typical > 0);
}

TEST(cores_that_others_have_are_seen) {
  Shared s(2);
  CoreShare::Account &a = s.join(), &b = s.join();
  CHECK(!s.share.others_have(a) && !s.share.others_have(b));
  CHECK(s.begin(a));
  CHECK(!s.share.others_have(a) && s.share.others_have(b));
  CHECK(s.begin(a) && !s.begin(b));  // b waits
  CHECK(s.share.others_have(a) && s.share.others_have(b));
  s.share.forget(b);
  CHECK(!s.share.others_have(a));
}

TEST(cores_that_a_batcher_has_itself_delay_none_of_its_batches) {
  constexpr Nanos kRun = 10'000'000;
  for (const int limit : {1, 2}) {
    Cores cores;
    cores.set_limit(limit);
    std::atomic<uint32_t> bell{0}, other_bell{0};
    Cores::Use use(cores, 1, bell), other(cores, 1, other_bell);
    CHECK_EQ(use.runs_at_once(1), limit);
    CHECK_EQ(use.runs_at_once(3), 1);
    CoreHold others, none;
    std::vector<CoreHold> holds(static_cast<size_t>(limit));
    Nanos now = 1;
    for (CoreHold& hold : holds) CHECK(use.begin(1, kRun, true, now, hold));
    CHECK(!use.begin(1, kRun, true, now, none));  // another worker of it, which is always there
    for (int i = 0; i < 50; ++i) {
      now += kRun / limit;
      CoreHold& hold = holds[static_cast<size_t>(i % limit)];
      use.end(hold, kRun, now);
      CHECK(use.begin(1, kRun, true, now, hold));
      CHECK(use.waits());
      CHECK_EQ(use.delay(now + kRun / 2).likely, 0);
    }
    // Somebody else comes, and has one of the cores from then on, in turns where it is the only one.
    CHECK(!other.begin(1, 2 * kRun, true, now, none));
    for (int i = 0; limit == 1 && i < 50; ++i) {
      use.end(holds[0], kRun, now += kRun);
      if (use.begin(1, kRun, true, now, holds[0])) continue;
      CHECK(other.begin(1, 2 * kRun, true, now, others));
      other.end(others, 2 * kRun, now += 2 * kRun);
      CHECK(!other.begin(1, 2 * kRun, true, now, others));
      CHECK(use.begin(1, kRun, true, now, holds[0]));
    }
    for (int i = 0; limit == 2 && i < 50; ++i) {
      use.end(holds[0], kRun, now += kRun);
      if (use.begin(1, kRun, true, now, holds[0])) continue;
      CHECK(other.begin(1, kRun, true, now, others));
      std::swap(holds[0], holds[1]);
    }
    const CoreWait delay = use.delay(now);
    if (limit == 1) CHECK(delay.typical > kRun / 2 && delay.typical <= 2 * kRun);
    if (limit == 2) CHECK(delay.typical > kRun / 2 && delay.typical <= kRun);
    for (CoreHold& hold : holds) use.end(hold, kRun, now);
    other.end(others, kRun, now);
    use.rest(now);
    other.rest(now);
  }
}

TEST(cores_of_one_let_one_batch_run_at_a_time) {
  const Limit one(1);
  Rig a({.workers = 2}), b({.workers = 2});
  a.model->shut();
  const RequestRef first = a.row(1);
  a.model->wait_for_runs(1);
  const RequestRef second = b.row(2), third = b.row(3);
  CHECK(!b.batcher->begin_caller_run(
      b.batcher->check(std::vector{StridedView::contiguous({DType::kF32, {2}, std::vector<float>{1, 1}.data()})})));
  CHECK_EQ(b.model->batches().size(), 0u);
  CHECK_EQ(b.batcher->stats().in_flight, 0u);
  CHECK(comes_true([&] { return b.batcher->stats().cores.waits != 0; }));  // a worker of it has to wake up first
  a.model->open();
  for (const auto& [rig, request] : {std::pair(&a, first), {&b, second}, {&b, third}}) {
    CHECK(rig->batcher->wait(*request) == Waited::kDone);
    CHECK(request->phase() == Phase::kResult);
  }
  CHECK(a.batcher->drain() && b.batcher->drain());
  const CoreFigures had = b.batcher->stats().cores;
  CHECK(had.waits >= 1 && had.wait_seconds > 0 && had.seconds > 0 && had.share > 0 && had.share < 1);
  CHECK_EQ(a.batcher->stats().cores.waits, 0u);
}

TEST(cores_are_waited_for_by_what_can_still_end_otherwise) {
  const Limit one(1);
  Rig a, b, c;
  a.model->shut();
  const RequestRef running = a.row(1);
  a.model->wait_for_runs(1);
  const RequestRef cancelled = b.row(1), late = b.row(2, {.deadline = SteadyClock::instance().now() + 2'000'000});
  const RequestRef closed = c.row(3);
  CHECK(b.batcher->cancel(*cancelled));
  CHECK(b.batcher->wait(*late) == Waited::kDone);
  CHECK(late->phase() == Phase::kExpired);
  CHECK(c.batcher->close(false));
  CHECK(closed->phase() == Phase::kClosed);
  const RequestRef again = b.row(4);
  a.model->open();
  CHECK(b.batcher->wait(*again) == Waited::kDone);
  CHECK(again->phase() == Phase::kResult);
  CHECK(a.batcher->close(true) && b.batcher->close(true));
  CHECK(running->phase() == Phase::kResult);
}

TEST(cores_without_a_limit_again_let_all_run_that_wait) {
  Limit one(1);
  Rig a, b;
  a.model->shut();
  const RequestRef first = a.row(1);
  a.model->wait_for_runs(1);
  const RequestRef second = b.row(2);
  Cores::process().set_limit(0);
  CHECK(b.batcher->wait(*second) == Waited::kDone);
  CHECK(!first->done());
  a.model->open();
  CHECK(a.batcher->close(true));
  Cores::process().set_limit(1);  // and what was held under the first limit is free
  CHECK(b.batcher->wait(*b.row(3)) == Waited::kDone);
}

TEST(cores_of_a_run_that_submits_are_free_for_what_it_waits_for) {
  const Limit one(1);
  Rig inner, outer;
  outer.model->on_run = [&] { CHECK(inner.batcher->wait(*inner.row(1)) == Waited::kDone); };
  for (int i = 0; i < 3; ++i) {
    const RequestRef request = outer.row(1);
    CHECK(outer.batcher->wait(*request) == Waited::kDone);
    CHECK(request->phase() == Phase::kResult);
  }
  CHECK(outer.batcher->close(true) && inner.batcher->close(true));
}

TEST(cores_are_shared_by_many_threads_that_come_and_go) {
  const Limit two(2);
  std::atomic<int> running{0}, most{0};
  std::vector<std::unique_ptr<Rig>> rigs;
  for (int i = 0; i < 3; ++i) {
    rigs.push_back(std::make_unique<Rig>(BatcherOptions{.max_batch_size = 2, .workers = 2, .weight = 1.0 + i}));
    rigs.back()->model->on_run = [&] {
      const int now = ++running;
      int seen = most.load();
      while (now > seen && !most.compare_exchange_weak(seen, now)) {
      }
      --running;
    };
  }
  std::vector<std::thread> threads;
  std::atomic<int> answered{0};
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      Rig& rig = *rigs[size_t(t) % rigs.size()];
      for (int i = 0; i < 300; ++i) {
        const RequestRef request = rig.row(float(i));
        if (i % 7 == 0) rig.batcher->cancel(*request);
        rig.batcher->wait(*request);
        answered += request->done();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(answered.load(), 1800);
  CHECK(most.load() <= 2);
  for (const auto& rig : rigs) CHECK(rig->batcher->close(true));
  // Nothing is held any more.
  Cores::process().set_limit(1);
  Rig last;
  CHECK(last.batcher->wait(*last.row(1)) == Waited::kDone);
}
