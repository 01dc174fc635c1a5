// The order of requests: its laws, and that the queue keeps them however long it is pushed.
#include <random>

#include "batching/fake_runner.h"
#include "batching/turn.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {
constexpr Nanos kSecond = 1'000'000'000;

struct Asked {
  Nanos came, deadline;
  int priority;
  Nanos turn(Nanos ageing) const { return turn_of(came, deadline, priority, ageing); }
};

Asked any(std::mt19937_64& random, Nanos ageing) {
  const Nanos came = static_cast<Nanos>(random() % uint64_t(30 * kSecond));
  const Nanos far = static_cast<Nanos>(random() % uint64_t(3 * patience_of(ageing) + 2));
  return {came, random() % 3 ? came + far : kNever, static_cast<int>(random() % 201) - 100};
}

/// For pairs of requests under several ageings; the first of a pair came first.
template <class Law>
void for_pairs(Law&& law) {
  std::mt19937_64 random(3);
  for (const Nanos ageing : {Nanos{0}, Nanos{1}, kSecond / 10, 2 * kSecond, kAgeing, 100 * kSecond, kNever}) {
    for (int i = 0; i < 20000; ++i) {
      Asked a = any(random, ageing), b = any(random, ageing);
      if (i % 2) b.priority = a.priority + static_cast<int>(random() % 3) - 1;  // near, so that it is close
      if (a.came > b.came) std::swap(a, b);
      law(a, b, ageing);
    }
  }
}
}  // namespace

TEST(turn_is_the_earliest_deadline_within_a_priority) {
  for_pairs([](const Asked& a, const Asked& b, Nanos ageing) {
    const Nanos patience = patience_of(ageing);
    const auto near = [&](const Asked& r) { return r.deadline <= r.came + patience; };
    const Asked peer{b.came, b.deadline, a.priority};
    if (near(a) && near(peer)) CHECK_EQ(a.turn(ageing) < peer.turn(ageing), a.deadline < peer.deadline);
    if (!near(a) && !near(peer)) CHECK_EQ(a.turn(ageing) < peer.turn(ageing), a.came < peer.came);
  });
}

TEST(turn_of_a_higher_priority_comes_first_but_for_who_has_waited_long) {
  for_pairs([](const Asked& a, const Asked& b, Nanos ageing) {
    if (b.priority <= a.priority || b.came >= a.deadline) return;  // one that has expired goes to nobody
    const Nanos levels = (b.priority - a.priority) * std::min(ageing, kMostAgeing);
    if (b.came - a.came < levels) CHECK(b.turn(ageing) < a.turn(ageing));
  });
}

TEST(turn_comes_however_many_go_first) {
  for_pairs([](const Asked& a, const Asked& b, Nanos ageing) {
    const Nanos levels = std::max(b.priority - a.priority, 0) * std::min(ageing, kMostAgeing);
    if (b.came - a.came > levels + patience_of(ageing)) CHECK(a.turn(ageing) < b.turn(ageing));
  });
}

TEST(turn_of_who_came_first_where_waiting_is_worth_nothing) {
  for_pairs([](const Asked& a, const Asked& b, Nanos) { CHECK_EQ(a.turn(0) < b.turn(0), a.came < b.came); });
}

TEST(turn_survives_all_that_a_clock_may_show) {
  for (const Nanos now : {Nanos{0}, kNever / 2, kNever - 1}) {
    for (const Nanos ageing : {Nanos{0}, kAgeing, kNever}) {
      CHECK(turn_of(now, kNever, 100, ageing) <= turn_of(now, kNever, -100, ageing));
      CHECK(turn_of(now, now, 100, ageing) <= turn_of(now, kNever, 100, ageing));
    }
  }
}

namespace {
/// Requests of priority 1, twice as many as can be answered, and one of priority 0: how long that waits.
Nanos longest_wait(Nanos ageing, Nanos timeout_of_others, Nanos give_up) {
  constexpr Nanos kRun = kSecond / 100;
  constexpr size_t kQueue = 20;
  ManualClock clock(kSecond);
  Rig rig({.max_batch_size = 1, .ageing = ageing, .max_queue_size = kQueue, .caller_runs = false}, {Shape::kFree, 2},
          clock);
  std::mutex mutex;
  std::vector<RequestRef> others;
  RequestRef low;
  rig.model->on_run = [&] {
    std::lock_guard lock(mutex);
    clock.advance(kRun);
    if (low->done() || clock.now() > give_up) return;
    for (int i = 0; i < 2; ++i) {
      try {
        others.push_back(rig.row(
            1, {.deadline = timeout_of_others == kNever ? kNever : clock.now() + timeout_of_others, .priority = 1}));
      } catch (const Error& error) {
        CHECK(error.code() == ErrorCode::kQueueFull || error.code() == ErrorCode::kDeadline);
      }
    }
  };
  const Nanos came = clock.now();
  {
    std::lock_guard lock(mutex);  // the first run waits for all of it
    for (int i = 0; i < 5; ++i) others.push_back(rig.row(1, {.priority = 1}));
    low = rig.row(0);
  }
  CHECK(rig.batcher->wait(*low) == Waited::kDone);
  CHECK(rig.batcher->drain());
  CHECK(low->phase() == Phase::kResult);
  for (const RequestRef& request : others) CHECK(request->done());
  return low->times.started.load() - came;
}
}  // namespace

TEST(turn_of_priority_0_comes_under_endless_priority_1) {
  // Those of the queue, and the one that runs, go first; a refused one may have come meanwhile.
  constexpr Nanos kSlack = 22 * kSecond / 100;
  for (const Nanos ageing : {kSecond / 2, 2 * kSecond, kAgeing}) {
    const Nanos alike = longest_wait(ageing, kNever, kNever);
    CHECK(alike >= ageing - kSecond / 10 && alike <= ageing + kSlack);
    const Nanos urgent = longest_wait(ageing, kSecond / 5, kNever);
    CHECK(urgent <= ageing + patience_of(ageing) + kSlack);
  }
  CHECK(longest_wait(0, kNever, kNever) <= kSlack);
  const Nanos give_up = 1000 * kSecond;
  CHECK(longest_wait(kNever, kNever, give_up) >= give_up - 2 * kSecond);  // priorities are strict: it goes last
}
