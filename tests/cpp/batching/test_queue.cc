#include <algorithm>
#include <deque>
#include <map>
#include <random>

#include "batching/fake_runner.h"
#include "batching/queue.h"
#include "cpu_time.h"
#include "test.h"

using namespace inferkit;
using inferkit::testing::cpu_seconds;

namespace {
LayoutRef layout(int64_t width) {
  auto made = std::make_shared<RowLayout>();
  made->rows = {Shape{width}};
  made->row_bytes = {static_cast<size_t>(width) * 4};
  return made;
}

RequestRef request(const LayoutRef& of, int64_t rows = 1, int priority = 0, Nanos deadline = kNever,
                   Nanos enqueued = 0) {
  static uint64_t next = 0;
  RequestRef made(new Request(of, rows, false, {deadline, priority, ++next, ""}));
  made->advance(Phase::kWaiting, Phase::kQueued);
  made->times.enqueued.store(enqueued);
  return made;
}

std::vector<uint64_t> ids(const std::vector<RequestRef>& requests) {
  std::vector<uint64_t> out;
  for (const auto& r : requests) out.push_back(r->id);
  return out;
}

std::vector<uint64_t> ids(RequestList& requests) {
  std::vector<uint64_t> out;
  while (const RequestRef r = requests.pop()) out.push_back(r->id);
  return out;
}

std::vector<RequestRef> take(Queue& queue, const LayoutRef& of, int64_t max_rows, RequestList* dropped = nullptr,
                             Nanos now = 0) {
  std::vector<RequestRef> batch;
  batch.reserve(100);
  RequestList none;
  queue.take(of->bucket, max_rows, now, batch, dropped ? *dropped : none);
  return batch;
}

size_t buckets(const Queue& queue) {
  size_t count = 0;
  for (const Bucket* bucket = queue.buckets(); bucket; bucket = bucket->next) ++count;
  return count;
}

Request* front(Queue& queue) { return queue.empty() ? nullptr : queue.candidates(kNever).buckets[0]->first(); }
}  // namespace

TEST(queue_goes_by_priority_then_first_in_first_out) {
  const LayoutRef l = layout(2);
  Queue q;
  std::vector<RequestRef> r;
  for (int priority : {0, 5, 0, -3, 5}) {
    r.push_back(request(l, 1, priority));
    q.push(r.back());
  }
  CHECK_EQ(l->bucket.state().turn, turn_of(0, kNever, 5, kAgeing));
  CHECK(front(q) == r[1].get());
  CHECK(ids(take(q, l, 10)) == (std::vector<uint64_t>{r[1]->id, r[4]->id, r[0]->id, r[2]->id, r[3]->id}));
  CHECK(q.empty());
  CHECK_EQ(buckets(q), 0u);
  for (const auto& one : r) CHECK(one->phase() == Phase::kRunning);
}

TEST(queue_goes_by_deadline_within_a_priority) {
  const LayoutRef l = layout(2);
  Queue q;
  auto never = request(l), late = request(l, 1, 0, 500), soon = request(l, 1, 0, 300), other = request(l, 1, 1, 400),
       then = request(l);
  for (const auto& r : {never, late, soon, other, then}) q.push(r);
  CHECK(ids(take(q, l, 10)) == (std::vector<uint64_t>{other->id, soon->id, late->id, never->id, then->id}));
}

TEST(queue_sends_the_bucket_of_the_earliest_turn) {
  const LayoutRef two = layout(2), three = layout(3);
  Queue q;
  q.push(request(two));
  CHECK(front(q)->layout == two);
  auto urgent = request(three, 1, 0, 300);
  q.push(urgent);
  CHECK(front(q) == urgent.get());
  q.push(request(two, 1, 0, 200));
  CHECK(front(q)->layout == two);
}

TEST(queue_goes_by_age_where_somebody_has_waited_for_long) {
  const LayoutRef l = layout(2);
  Queue q({.max_rows = 8, .ageing = 100});
  auto old = request(l, 1, 0, kNever, 10), young = request(l, 1, 1, kNever, 111),
       before = request(l, 1, 1, kNever, 109);
  for (const auto& r : {young, old, before}) q.push(r);
  CHECK(ids(take(q, l, 10)) == (std::vector<uint64_t>{before->id, old->id, young->id}));
}

TEST(queue_counts_rows_and_lets_nobody_overtake) {
  const LayoutRef l = layout(2);
  Queue q;
  auto a = request(l, 3), b = request(l, 6), c = request(l, 1);
  for (const auto& r : {a, b, c}) q.push(r);
  CHECK_EQ(q.rows(), 10);
  CHECK_EQ(take(q, l, 8).size(), 1u);  // b does not fit, and c waits behind it
  CHECK_EQ(q.rows(), 7);
  CHECK(ids(take(q, l, 8)) == (std::vector<uint64_t>{b->id, c->id}));
}

TEST(queue_keeps_layouts_apart) {
  const LayoutRef two = layout(2), three = layout(3);
  Queue q;
  auto a = request(two), b = request(three), c = request(two);
  for (const auto& r : {a, b, c}) q.push(r);
  CHECK_EQ(buckets(q), 2u);
  CHECK(ids(take(q, three, 8)) == std::vector<uint64_t>{b->id});
  CHECK(ids(take(q, two, 8)) == (std::vector<uint64_t>{a->id, c->id}));
}

TEST(queue_gives_no_place_to_the_cancelled_and_expired) {
  const LayoutRef l = layout(2);
  Queue q;
  auto cancelled = request(l, 8), expired = request(l, 8, 0, 100), live = request(l, 8, 0, 101);
  for (const auto& r : {cancelled, expired, live}) q.push(r);
  cancelled->finish(Phase::kCancelled);
  RequestList dropped;
  CHECK(ids(take(q, l, 8, &dropped, 100)) == std::vector<uint64_t>{live->id});
  CHECK(ids(dropped) == (std::vector<uint64_t>{expired->id, cancelled->id}));
  CHECK(expired->phase() == Phase::kQueued);  // whoever took it out ends it
}

TEST(queue_removes_from_anywhere_once) {
  const LayoutRef l = layout(2);
  for (size_t victim = 0; victim < 3; ++victim) {
    Queue q;
    std::vector<RequestRef> r{request(l), request(l), request(l)};
    for (const auto& one : r) q.push(one);
    CHECK(q.remove(*r[victim]) == r[victim]);
    CHECK(!q.remove(*r[victim]));
    Queue other;
    CHECK(!other.remove(*r[(victim + 1) % 3]));  // it is in another queue
    r.erase(r.begin() + static_cast<std::ptrdiff_t>(victim));
    CHECK(ids(take(q, l, 8)) == ids(r));
  }
}

TEST(queue_sweeps_what_is_late) {
  const LayoutRef l = layout(2);
  Queue q;
  auto never = request(l), early = request(l, 1, 3, 10), late = request(l, 1, 0, 20);
  for (const auto& r : {never, early, late}) q.push(r);
  RequestList expired;
  q.sweep(9, expired);
  CHECK(expired.empty());
  q.sweep(10, expired);
  CHECK(ids(expired) == std::vector<uint64_t>{early->id});
  CHECK_EQ(l->bucket.state().earliest_deadline, 20);
  q.sweep(30, expired);
  CHECK_EQ(q.size(), 1u);
}

TEST(queue_knows_its_oldest) {
  const LayoutRef l = layout(2), m = layout(3);
  Queue q;
  CHECK_EQ(q.oldest(), kNever);
  q.push(request(l, 1, 5, kNever, 30));
  q.push(request(l, 1, 0, kNever, 20));
  q.push(request(m, 1, 0, kNever, 25));
  CHECK_EQ(q.oldest(), 20);
  CHECK_EQ(l->bucket.state().oldest, 20);
}

TEST(queue_owns_what_it_holds) {
  RequestRef r = request(layout(2));
  {
    Queue q;
    q.push(r);
    q.push(request(layout(3)));
  }
  CHECK(!r->done());
}

TEST(queue_agrees_with_a_naive_model) {
  std::mt19937 random(7);
  const std::vector<LayoutRef> layouts{layout(1), layout(2), layout(3)};
  constexpr Nanos kLevel = 200;
  Queue q({.max_rows = 6, .ageing = kLevel});
  std::vector<RequestRef> model;  // in the order of pushes
  for (int step = 0; step < 20000; ++step) {
    const auto choice = random() % 10;
    if (choice < 5) {
      const Nanos came = step + static_cast<Nanos>(random() % 40);
      model.push_back(request(layouts[random() % 3], 1 + random() % 4, static_cast<int>(random() % 3),
                              random() % 2 ? kNever : came + 1 + static_cast<Nanos>(random() % 300), came));
      q.push(model.back());
    } else if (choice < 7 && !model.empty()) {
      const auto at = model.begin() + static_cast<std::ptrdiff_t>(random() % model.size());
      CHECK(q.remove(**at) == *at);
      model.erase(at);
    } else if (!model.empty()) {
      const LayoutRef l = model[random() % model.size()]->layout;
      std::vector<RequestRef> want;
      for (const auto& r : model) {
        if (r->layout == l) want.push_back(r);
      }
      // Each level of priority counts as so much less time to live, and to live for ever as a level.
      const auto left = [](const Request& r) {
        return std::min(r.deadline, r.times.enqueued.load() + kLevel) - kLevel * r.priority;
      };
      std::stable_sort(want.begin(), want.end(), [&](const auto& a, const auto& b) { return left(*a) < left(*b); });
      int64_t rows = 0;
      size_t count = 0;
      while (count < want.size() && rows + want[count]->rows <= 6) rows += want[count++]->rows;
      want.resize(count);
      CHECK(ids(take(q, l, 6)) == ids(want));
      std::erase_if(model, [&](const auto& r) { return std::find(want.begin(), want.end(), r) != want.end(); });
    }
    CHECK_EQ(q.size(), model.size());
    int64_t rows = 0;
    for (const auto& r : model) rows += r->rows;
    CHECK_EQ(q.rows(), rows);
  }
}

namespace {
/// As decide(), over every bucket.
Decision decide_over_all(const Queue& queue, Nanos now, std::vector<const Bucket*>& order) {
  std::vector<BucketState> states;
  order.clear();
  for (const Bucket* bucket = queue.buckets(); bucket; bucket = bucket->next) {
    states.push_back(bucket->state());
    order.push_back(bucket);
  }
  return decide(states, now, queue.policy(), queue.draining());
}
}  // namespace

TEST(queue_candidates_decide_for_all) {
  for (const Nanos delay : {0, 40}) {
    std::mt19937 random(11);
    std::vector<LayoutRef> layouts;
    for (int64_t width = 1; width <= 12; ++width) layouts.push_back(layout(width));
    Queue q({.max_rows = 4, .max_delay = delay, .ageing = 30});
    std::vector<RequestRef> in;
    size_t held = 0;
    std::vector<const Bucket*> order;
    Nanos now = 100;
    for (int step = 0; step < 20000; ++step) {
      now += random() % 8;
      if (step == 18000) q.drain();
      if (random() % 50 == 0) q.set_slack(random() % 20);
      if (const auto choice = random() % 10; choice < 5) {
        in.push_back(request(layouts[random() % layouts.size()], 1 + random() % 2, static_cast<int>(random() % 3),
                             random() % 3 ? kNever : now + 1 + random() % 60, now));
        q.push(in.back());
      } else if (choice == 5 && !in.empty()) {
        q.remove(*in[random() % in.size()]);
      } else if (choice == 6) {
        RequestList expired;
        q.sweep(now, expired);
      }
      held += q.size();
      const Candidates candidates = q.candidates(now);
      const Decision few = decide(candidates.span(), now, q.policy(), q.draining());
      const Decision all = decide_over_all(q, now, order);
      CHECK(few.kind == all.kind);
      CHECK_EQ(few.until, all.until);
      if (few.kind != Decision::Kind::kDispatch) continue;
      CHECK(candidates.buckets[few.bucket] == order[all.bucket]);
      CHECK(few.reason == all.reason);
      if (random() % 2) {
        RequestList dropped;
        std::vector<RequestRef> batch;
        batch.reserve(8);
        q.take(*candidates.buckets[few.bucket], 4, now, batch, dropped);
      }
    }
    CHECK(held > 40000);  // some are there nearly always
  }
}

TEST(queue_takes_no_more_than_the_batch_has_room_for) {
  const LayoutRef l = layout(2);
  Queue q;
  for (int i = 0; i < 5; ++i) q.push(request(l));
  std::vector<RequestRef> batch;
  batch.reserve(2);
  RequestList dropped;
  q.take(l->bucket, 8, 0, batch, dropped);
  CHECK_EQ(batch.size(), 2u);
  CHECK_EQ(q.size(), 3u);
}

namespace {
/// Seconds for `count` requests of `widths` different layouts to come, wait together and go.
double seconds_for(int64_t widths, int count) {
  std::vector<LayoutRef> layouts;
  for (int64_t width = 0; width < widths; ++width) layouts.push_back(layout(width + 1));
  std::vector<RequestRef> requests;
  for (int i = 0; i < count; ++i) requests.push_back(request(layouts[static_cast<size_t>(i % widths)]));
  Queue q({8, 0});
  std::vector<RequestRef> batch;
  batch.reserve(8);
  RequestList dropped;
  return cpu_seconds([&] {
    for (const auto& r : requests) {
      q.push(r);
      (void)q.candidates(0);
    }
    for (size_t i = 0; i < requests.size(); i += 7) q.remove(*requests[i]);
    while (!q.empty()) {
      q.take(*q.candidates(0).buckets[0], 8, 0, batch, dropped);
      batch.clear();
    }
  });
}
}  // namespace

TEST(queue_costs_the_logarithm_of_its_layouts) {
  constexpr int kCount = 20000;
  seconds_for(1, kCount);
  // As many buckets as requests against one: more work and a cache miss each, but not 20,000 times as much.
  const double one = seconds_for(1, kCount), many = seconds_for(kCount, kCount);
  CHECK(many < 60 * std::max(one, 1e-3));
}

TEST(line_keeps_its_links_through_anything) {
  std::mt19937 random(5);
  const LayoutRef l = layout(2);
  // Lines whose requests come in order, nearly so, and anyhow; each is emptied now and then.
  for (int kind = 0; kind < 4; ++kind) {
    Line line;
    std::vector<RequestRef> model;  // as they should stand
    for (int step = 0; step < 10000; ++step) {
      const bool emptying = step / 100 % 4 == 3;
      if (model.empty() || random() % (emptying ? 5 : 2) == 0) {
        const Nanos came = kind == 3 ? random() % 100 : step;
        const Nanos deadline = kind == 0 ? kNever : kind == 1 ? came + 50 : random() % 2 ? kNever : random() % 99;
        RequestRef r = request(l, 1 + random() % 3, 0, deadline, came);
        const bool odd = kind < 2 && random() % 200 == 0;
        r->turn = kind == 3 ? random() % 50 : came + (kind == 2 ? random() % 50 : 0) - (odd ? 20 : 0);
        line.push(r);
        model.insert(std::find_if(model.begin(), model.end(), [&](const auto& m) { return m->turn > r->turn; }), r);
      } else {
        const size_t at = random() % 2 ? 0 : random() % model.size();
        CHECK(line.remove(*model[at]) == model[at]);
        CHECK(!line.remove(*model[at]));
        model.erase(model.begin() + static_cast<std::ptrdiff_t>(at));
      }
      std::vector<uint64_t> got;
      for (Request* r = line.first(); r; r = Line::next(*r)) got.push_back(r->id);
      CHECK(got == ids(model));
      Nanos earliest = kNever, oldest = kNever;
      const Nanos turn = model.empty() ? 0 : model[random() % model.size()]->turn - random() % 2;
      const Nanos now = kind == 1 ? step + random() % 50 : random() % 99;
      int64_t rows = 0, before = 0;
      const Request* due = nullptr;
      for (const auto& r : model) {
        earliest = std::min(earliest, r->deadline);
        oldest = std::min(oldest, r->times.enqueued.load());
        rows += r->rows;
        if (r->turn <= turn) before += r->rows;
        if (!due && r->deadline <= now) due = r.get();
      }
      CHECK_EQ(line.earliest_deadline(), earliest);
      CHECK_EQ(line.oldest(), oldest);
      CHECK_EQ(line.rows(), rows);
      CHECK(line.first_due(now) == due);
      CHECK_EQ(line.size(), model.size());
      // Not always, as it grows an index over a line that has none.
      if (step % 1000 > 700) CHECK_EQ(line.rows_before(turn), before);
      if (step % 1000 < 850) continue;
      const Nanos each = step / 1000 % 2 ? 3 : 20;
      Nanos slack = kNever;
      int64_t up_to = 0;
      for (const auto& r : model) {
        up_to += r->rows;
        if (r->turn > turn && r->deadline != kNever) slack = std::min(slack, r->deadline - up_to * each);
      }
      CHECK_EQ(line.slack_after(turn, 0, each), slack);
      CHECK_EQ(line.slack_after(turn, 1, each), kNever);
    }
  }
}

TEST(line_has_no_slack_to_tell_of_several_priorities) {
  const LayoutRef l = layout(2);
  Line line;
  const auto push = [&](int priority, Nanos turn) {
    const RequestRef r = request(l, 2, priority, 100);
    r->turn = turn;
    line.push(r);
    return r;
  };
  const RequestRef a = push(0, 10), b = push(0, 20);
  CHECK(!line.has_overtakers());
  CHECK_EQ(line.slack_after(15, 0, 5), 100 - 4 * 5);
  CHECK_EQ(line.slack_after(5, 0, 5), 100 - 4 * 5);
  CHECK_EQ(line.slack_after(20, 0, 5), kNever);  // nobody is behind it
  const RequestRef c = push(1, 15);
  CHECK(line.has_overtakers());
  CHECK_EQ(line.slack_after(5, 0, 5), kNever);
  for (const auto& r : {a, b, c}) line.remove(*r);
  const RequestRef d = push(0, 10), e = push(0, 20);  // empty in between: what was is forgotten
  CHECK(!line.has_overtakers());
  CHECK_EQ(line.slack_after(15, 0, 5), 100 - 4 * 5);
}

namespace {
/// Seconds for `count` requests to come, each with the turn that `turn` gives it, to be asked about and to go.
template <class Turn>
double seconds_in_line(int count, Turn&& turn) {
  const LayoutRef l = layout(2);
  std::vector<RequestRef> requests;
  for (int i = 0; i < count; ++i) {
    requests.push_back(request(l, 1, 0, 1000 + i % 7));
    requests.back()->turn = turn(i);
  }
  Line line;
  return cpu_seconds([&] {
    for (const auto& r : requests) {
      line.push(r);
      (void)line.rows_before(line.first()->turn / 2 + r->turn / 2);
    }
    for (int i = 0; i < count; i += 7) line.remove(*requests[static_cast<size_t>(i)]);
    while (Request* first = line.first_due(5000)) line.unlink(*first);
  });
}
}  // namespace

TEST(line_costs_the_logarithm_of_its_length_in_any_order) {
  constexpr int kCount = 60000;
  seconds_in_line(kCount, [](int i) { return i; });
  const double in_order = seconds_in_line(kCount, [](int i) { return i; });
  for (const double other : {seconds_in_line(kCount, [](int i) { return -i; }),
                             seconds_in_line(kCount, [](int i) { return i % 2 ? i : -i; }),
                             seconds_in_line(kCount, [](int i) { return Nanos(i) * 7919 % kCount; }),
                             seconds_in_line(kCount, [](int) { return 0; })}) {
    CHECK(other < 60 * std::max(in_order, 1e-3));  // a line that is searched would take hundreds of times as long
  }
}

TEST(queue_sends_each_shape_while_there_is_time_for_it) {
  const testing::FakeRunner runner({Shape::kFree, Shape::kFree});
  Predictor predictor(runner);
  const LayoutRef fast = layout(2), slow = layout(3), unknown = layout(50);
  Queue q({8, 10'000}, &predictor);
  q.set_slack(5);
  for (Nanos now = 1; now <= 6; ++now) {
    predictor.learn(*fast, 1, 10, now);
    predictor.learn(*slow, 1, 1000, now);
  }
  const auto decision = [&](Nanos now) { return decide(q.candidates(now).span(), now, q.policy(), false); };
  RequestRef r = request(fast, 1, 0, 2000, 7);
  q.push(r);
  CHECK(decision(7).kind == Decision::Kind::kWait);
  const Nanos margin = (2000 - 7) / 4;  // for who wakes up late: a part of the time that it was given
  CHECK_EQ(decision(7).until, 2000 - 10 - 10 / 4 - 5 - margin);
  CHECK(q.remove(*r));
  q.push(r = request(slow, 1, 0, 2000, 7));
  CHECK_EQ(decision(7).until, 2000 - 1000 - 1000 / 4 - 5 - margin);
  CHECK(decision(750).reason == DispatchReason::kDeadline);
  CHECK(q.remove(*r));
  q.push(request(slow, 1, 0, kNever, 7));  // it waits for company as long as it is told to
  CHECK_EQ(decision(7).until, 10'007);
  const Predictor nothing(runner);
  Queue first({8, 10'000}, &nothing);
  first.push(request(unknown, 1, 0, 2000, 7));  // its run may take any time
  CHECK(decide(first.candidates(7).span(), 7, first.policy(), false).reason == DispatchReason::kDeadline);
}
