// Who goes next among clients: FairShare and FairOrder, through the Queue that they belong to.
#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <vector>

#include "base/cat.h"
#include "base/error.h"
#include "batching/client.h"
#include "batching/fake_runner.h"
#include "batching/queue.h"
#include "test.h"

using namespace inferkit;

namespace {
LayoutRef layout(int64_t width) {
  auto made = std::make_shared<RowLayout>();
  made->rows = {Shape{width}};
  made->row_bytes = {static_cast<size_t>(width) * 4};
  return made;
}

ClientRef client(const char* name, double weight = 1) { return ClientRef(new Client(name, {.weight = weight}, true)); }

RequestRef request(const LayoutRef& of, const ClientRef& from, int64_t rows = 1, int priority = 0,
                   Nanos deadline = kNever, Nanos enqueued = 0) {
  static uint64_t next = 0;
  RequestRef made(new Request(of, rows, false, {deadline, priority, ++next, ""}));
  if (from) made->member = std::make_unique<Membership>(*made, from, from->strand(*of, priority));
  made->advance(Phase::kWaiting, Phase::kQueued);
  made->times.enqueued.store(enqueued);
  return made;
}

const Client* whose(const RequestRef& of) { return of->member ? of->member->client.get() : nullptr; }

std::vector<RequestRef> take(Queue& queue, Bucket& bucket, int64_t max_rows, size_t most = 1000) {
  std::vector<RequestRef> batch;
  batch.reserve(most);
  RequestList none;
  queue.take(bucket, max_rows, 0, batch, none);
  return batch;
}

/// The next batch, from whichever bucket it is to be.
std::vector<RequestRef> next(Queue& queue, int64_t max_rows) {
  Bucket& ready = *queue.candidates(kNever).buckets[0];
  return take(queue, queue.fairest(ready), max_rows);
}

std::vector<uint64_t> ids(const std::vector<RequestRef>& requests) {
  std::vector<uint64_t> out;
  for (const auto& r : requests) out.push_back(r->id);
  return out;
}

int64_t rows_of(const std::vector<RequestRef>& batch, const ClientRef& of) {
  int64_t rows = 0;
  for (const auto& r : batch) rows += whose(r) == of.get() ? r->rows : 0;
  return rows;
}

std::vector<RequestRef> push(Queue& queue, int count, const LayoutRef& of, const ClientRef& from) {
  std::vector<RequestRef> out;
  for (int i = 0; i < count; ++i) queue.push(out.emplace_back(request(of, from)));
  return out;
}
}  // namespace

TEST(fair_queue_serves_a_newcomer_beside_a_greedy_client) {
  const LayoutRef l = layout(2);
  Queue q;
  const ClientRef greedy = client("greedy"), light = client("light");
  push(q, 100, l, greedy);
  push(q, 3, l, light);
  const auto batch = take(q, l->bucket, 8);
  CHECK_EQ(rows_of(batch, light), 3);
  CHECK_EQ(rows_of(batch, greedy), 5);
  CHECK_EQ(l->bucket.members, 95u);
}

TEST(fair_queue_keeps_to_the_weights) {
  const LayoutRef l = layout(2);
  Queue q;
  const std::array<ClientRef, 3> of{client("a", 1), client("b", 2), client("c", 4)};
  for (const auto& from : of) push(q, 400, l, from);
  std::array<int64_t, 3> rows{};
  for (int i = 0; i < 10; ++i) {
    const auto batch = take(q, l->bucket, 35);
    for (size_t c = 0; c < 3; ++c) rows[c] += rows_of(batch, of[c]);
  }
  CHECK(rows == (std::array<int64_t, 3>{50, 100, 200}));
}

TEST(fair_queue_counts_rows_and_not_requests) {
  const LayoutRef l = layout(2);
  Queue q;
  const ClientRef wide = client("wide"), narrow = client("narrow");
  std::vector<RequestRef> kept;
  for (int i = 0; i < 50; ++i) q.push(kept.emplace_back(request(l, wide, 8)));
  push(q, 400, l, narrow);
  int64_t of_wide = 0, of_narrow = 0;
  for (int i = 0; i < 20; ++i) {
    const auto batch = take(q, l->bucket, 32);
    of_wide += rows_of(batch, wide);
    of_narrow += rows_of(batch, narrow);
  }
  CHECK(std::abs(of_wide - of_narrow) <= 8);
  CHECK(of_wide + of_narrow > 500);
}

TEST(fair_queue_gives_no_credit_for_the_past) {
  const LayoutRef l = layout(2);
  Queue q;
  const ClientRef busy = client("busy"), idle = client("idle");
  push(q, 1, l, idle);
  push(q, 500, l, busy);
  for (int i = 0; i < 40; ++i) take(q, l->bucket, 10);  // `idle` sends nothing for 400 rows
  push(q, 100, l, idle);
  const auto batch = take(q, l->bucket, 20);
  CHECK_EQ(rows_of(batch, idle), 10);
  CHECK_EQ(rows_of(batch, busy), 10);
}

TEST(fair_queue_holds_no_grudge_for_what_ran_while_nobody_waited) {
  const LayoutRef l = layout(2);
  Queue q;
  const ClientRef before = client("before"), after = client("after");
  push(q, 300, l, before);
  while (!q.empty()) take(q, l->bucket, 10);
  push(q, 100, l, before);
  push(q, 100, l, after);
  const auto batch = take(q, l->bucket, 20);
  CHECK_EQ(rows_of(batch, before), 10);
}

TEST(fair_queue_goes_by_deadline_within_a_client_and_by_tags_between_them) {
  const LayoutRef l = layout(2);
  Queue q;
  const ClientRef a = client("a"), b = client("b");
  const auto a1 = request(l, a), a2 = request(l, a, 1, 0, 500), a3 = request(l, a, 1, 0, 300),
             b1 = request(l, b, 1, 0, 900), b2 = request(l, b, 1, 0, 200);
  for (const auto& r : {a1, a2, a3, b1, b2}) q.push(r);
  // Tags: a 0, b 0; of equal ones, the earliest turn: b2 with 200.
  CHECK(ids(take(q, l->bucket, 10)) == (std::vector<uint64_t>{b2->id, a3->id, a2->id, b1->id, a1->id}));
}

TEST(fair_queue_keeps_levels_apart_and_ages_them) {
  const LayoutRef l = layout(2);
  Queue q({.max_rows = 8, .ageing = 100});
  const ClientRef a = client("a"), b = client("b");
  const auto old = request(l, a, 1, 0, kNever, 10), young = request(l, b, 1, 1, kNever, 111),
             before = request(l, a, 1, 1, kNever, 109);
  for (const auto& r : {young, old, before}) q.push(r);
  // Of priority 1, `before` has the earlier turn at equal tags; then the old one of priority 0 has waited longer than
  // `young` by more than 100.
  CHECK(ids(take(q, l->bucket, 10)) == (std::vector<uint64_t>{before->id, old->id, young->id}));
}

TEST(fair_queue_is_fair_across_layouts) {
  const LayoutRef two = layout(2), three = layout(3);
  Queue q;
  const ClientRef greedy = client("greedy"), light = client("light");
  push(q, 400, two, greedy);
  push(q, 400, three, light);
  int64_t of_greedy = 0, of_light = 0;
  for (int i = 0; i < 20; ++i) {
    const auto batch = next(q, 10);
    of_greedy += rows_of(batch, greedy);
    of_light += rows_of(batch, light);
  }
  CHECK_EQ(of_greedy, 100);
  CHECK_EQ(of_light, 100);
}

TEST(fair_queue_shares_with_those_who_have_no_name_as_with_one_client) {
  const LayoutRef l = layout(2);
  Queue q;
  const ClientRef nobody = client(""), a = client("a");
  const auto early = request(l, nullptr);  // came before there were clients: goes first, by its turn
  q.push(early);
  push(q, 40, l, nobody);
  push(q, 40, l, a);
  const auto batch = take(q, l->bucket, 21);
  CHECK_EQ(batch[0]->id, early->id);
  CHECK_EQ(rows_of(batch, a), 10);
  CHECK_EQ(rows_of(batch, nobody), 10);
}

TEST(fair_queue_takes_one_alone_whatever_its_rows) {
  const LayoutRef l = layout(2);
  Queue q({.max_rows = 8, .alone = true});
  const ClientRef a = client("a"), b = client("b");
  q.push(request(l, a, 1));
  const auto wide = request(l, b, 5, 0, 100);  // goes first: it has the earlier turn at an equal tag
  q.push(request(l, b, 2));
  q.push(wide);
  CHECK(ids(take(q, l->bucket, 1)) == (std::vector<uint64_t>{wide->id}));
  CHECK_EQ(take(q, l->bucket, 1).size(), 1u);
  CHECK_EQ(take(q, l->bucket, 2).size(), 1u);
  CHECK(q.empty());
}

TEST(fair_queue_says_how_much_goes_before) {
  const LayoutRef l = layout(2);
  Queue q;
  const ClientRef greedy = client("greedy"), light = client("light", 2);
  push(q, 90, l, greedy);
  push(q, 10, l, light);
  const Nanos last = q.turn_of(0, kNever, 0);
  // Behind its own 10, of weight 2, come 5 of the other, and the one that starts with it.
  CHECK_EQ(q.part_before(light->strand(*l, 0)->flow, last), 0.16);
  CHECK_EQ(q.part_before(greedy->strand(*l, 0)->flow, last), 1.0);
  // One with an earlier turn than its client's others goes at the client's next opportunity.
  CHECK_EQ(q.part_before(greedy->strand(*l, 0)->flow, 5), 0.01);
  const ClientRef fresh = client("fresh");
  CHECK_EQ(q.part_before(fresh->strand(*l, 0)->flow, last), 0.02);
}

/// Any order of arrivals, batches and departures: nothing is lost, and the order is that of a plain model, which looks
/// at everything each time.
TEST(fair_queue_agrees_with_a_plain_model) {
  std::mt19937 random(7);
  const auto upto = [&](int n) { return static_cast<int>(random() % unsigned(n)); };
  for (int round = 0; round < 60; ++round) {
    const std::array<LayoutRef, 2> layouts{layout(2), layout(3)};
    Queue q({.max_rows = 16, .ageing = 50});
    std::vector<ClientRef> clients;
    for (const double weight : {1.0, 2.0, 4.0, 0.5}) clients.push_back(client("c", weight));
    std::vector<RequestRef> waiting;
    std::map<std::pair<const Client*, int>, double> tags;
    std::map<int, double> start, finish;
    const auto key = [](const RequestRef& r) { return std::pair(whose(r), r->priority); };
    const auto waits = [&](const auto& which) { return std::ranges::any_of(waiting, which); };
    const auto gone = [&](const RequestRef& r) {
      std::erase(waiting, r);
      if (!waits([&](const RequestRef& o) { return o->priority == r->priority; })) {
        start[r->priority] = finish[r->priority];
      }
    };
    const auto earlier = [](const RequestRef& a, const RequestRef& b) {
      return std::pair(a->turn, a->order) < std::pair(b->turn, b->order);
    };
    for (int step = 0; step < 200; ++step) {
      const int what = upto(4);
      if (what < 2) {
        const RequestRef r = request(layouts[size_t(upto(2))], clients[size_t(upto(4))], 1 + upto(4), upto(3) - 1,
                                     upto(3) ? kNever : 100 + upto(100), step);
        double& tag = tags[key(r)];
        if (!waits([&](const RequestRef& o) { return key(o) == key(r); })) tag = std::max(tag, start[r->priority]);
        q.push(r);
        waiting.push_back(r);
      } else if (what == 2 && !waiting.empty()) {
        const RequestRef r = waiting[size_t(upto(int(waiting.size())))];
        CHECK(q.remove(*r) == r);
        gone(r);
      } else if (what == 3 && !waiting.empty()) {
        Bucket& bucket = q.fairest(*q.candidates(kNever).buckets[0]);
        const auto in_bucket = [&](const RequestRef& r) { return &r->layout->bucket == &bucket; };
        // The next of some requests: the level by turns, the client by tags, the request by turns.
        const auto best = [&](const auto& eligible) {
          RequestRef level, out;
          for (const auto& r : waiting) {
            if (eligible(r) && (!level || earlier(r, level))) level = r;
          }
          std::map<const Client*, RequestRef> heads;
          for (const auto& r : waiting) {
            if (!level || !eligible(r) || r->priority != level->priority) continue;
            RequestRef& head = heads[whose(r)];
            if (!head || earlier(r, head)) head = r;
          }
          for (const auto& [c, r] : heads) {
            const double a = tags[key(r)], b = out ? tags[key(out)] : 0;
            if (!out || a < b || (a == b && earlier(r, out))) out = r;
          }
          return out;
        };
        CHECK(in_bucket(best([](const RequestRef&) { return true; })));
        int64_t room = 16;
        std::vector<uint64_t> expected;
        const auto before = waiting;
        while (const RequestRef r = best(in_bucket)) {
          if (r->rows > room) break;
          room -= r->rows;
          expected.push_back(r->id);
          double& tag = tags[key(r)];
          start[r->priority] = std::max(start[r->priority], tag);
          tag += double(r->rows) / whose(r)->options.weight;
          finish[r->priority] = std::max(finish[r->priority], tag);
          gone(r);
        }
        CHECK(ids(take(q, bucket, 16)) == expected);
      }
      int64_t rows = 0;
      for (const auto& r : waiting) rows += r->rows;
      CHECK_EQ(q.rows(), rows);
      CHECK_EQ(q.size(), waiting.size());
    }
    RequestList left;
    q.clear(left);
    CHECK(!q.is_fair());
  }
}

TEST(rate_limit_is_a_bucket_that_fills_again) {
  RateLimit limit(10, 3);  // ten a second, three at once
  Nanos now = 1'000'000'000;
  for (int i = 0; i < 3; ++i) CHECK_EQ(limit.take(now), 0);
  CHECK_EQ(limit.take(now), 100'000'000);
  CHECK_EQ(limit.take(now + 40'000'000), 60'000'000);
  CHECK(!limit.full(now + 299'999'999));
  CHECK(limit.full(now + 300'000'000));
  CHECK_EQ(limit.take(now + 100'000'000), 0);
  CHECK_EQ(limit.take(now + 100'000'000), 100'000'000);
  int taken = 0;  // over ten seconds: the rate, and what the pause had gathered
  for (now += 10'000'000'000; now < 21'000'000'000; now += 1'000'000) taken += limit.take(now) == 0;
  CHECK_EQ(taken, 3 + 99);
}

TEST(client_table_forgets_who_is_idle_and_bounds_the_others) {
  ManualClock clock(1'000'000'000);
  ClientTable table({{"kept", {.weight = 2}}}, {}, clock);
  CHECK(table.anonymous());
  const ClientRef busy = table.find("busy");
  busy->hold();
  for (size_t i = 0; i < 3 * ClientTable::kMost; ++i) table.find(std::to_string(i));
  CHECK(table.figures().size() <= ClientTable::kMost + 1);
  CHECK(table.find("busy") == busy);
  CHECK_EQ(table.find("kept")->options.weight, 2.0);
  std::vector<ClientRef> all{busy};
  while (all.size() < ClientTable::kMost) {
    all.push_back(table.find(cat("b", all.size())));
    all.back()->hold();
  }
  CHECK_THROWS(table.find("one more"), Error);
  all.back()->leave();
  CHECK(table.find("one more"));
  busy->leave();
}

TEST(client_table_without_names_has_nobody) {
  ManualClock clock(1'000'000'000);
  ClientTable table({}, {}, clock);
  CHECK(!table.anonymous());
  table.find("a");
  CHECK(table.anonymous());
  CHECK_THROWS(table.find(""), std::invalid_argument);
  CHECK_THROWS(table.find(std::string(257, 'a')), std::invalid_argument);
  CHECK_THROWS(ClientTable({{"a", {.weight = 0}}}, {}, clock), std::invalid_argument);
  CHECK_THROWS(ClientTable({}, {.rate = -1}, clock), std::invalid_argument);
}
