#include <algorithm>
#include <deque>
#include <map>
#include <random>

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

std::vector<RequestRef> take(Queue& queue, size_t bucket, int64_t max_rows, std::vector<RequestRef>* dropped = nullptr,
                             Nanos now = 0) {
  std::vector<RequestRef> batch, none;
  queue.take(bucket, max_rows, now, batch, dropped ? *dropped : none);
  return batch;
}
}  // namespace

TEST(queue_priority_then_fifo) {
  const LayoutRef l = layout(2);
  Queue q;
  std::vector<RequestRef> r;
  for (int priority : {0, 5, 0, -3, 5}) {
    r.push_back(request(l, 1, priority));
    q.push(r.back());
  }
  CHECK_EQ(q.states()[0].top_priority, 5);
  CHECK(q.front() == r[1].get());
  CHECK(ids(take(q, 0, 10)) == (std::vector<uint64_t>{r[1]->id, r[4]->id, r[0]->id, r[2]->id, r[3]->id}));
  CHECK(q.empty());
  CHECK(q.states().empty());
  for (const auto& one : r) CHECK(one->phase() == Phase::kRunning);
}

TEST(queue_counts_rows_and_lets_nobody_overtake) {
  const LayoutRef l = layout(2);
  Queue q;
  auto a = request(l, 3), b = request(l, 6), c = request(l, 1);
  for (const auto& r : {a, b, c}) q.push(r);
  CHECK_EQ(q.rows(), 10);
  CHECK_EQ(take(q, 0, 8).size(), 1u);  // b does not fit, and c waits behind it
  CHECK_EQ(q.rows(), 7);
  CHECK(ids(take(q, 0, 8)) == (std::vector<uint64_t>{b->id, c->id}));
}

TEST(queue_keeps_layouts_apart) {
  const LayoutRef two = layout(2), three = layout(3);
  Queue q;
  auto a = request(two), b = request(three), c = request(two);
  for (const auto& r : {a, b, c}) q.push(r);
  CHECK_EQ(q.states().size(), 2u);
  CHECK(q.layout(1) == three);
  CHECK(ids(take(q, 1, 8)) == std::vector<uint64_t>{b->id});
  CHECK(ids(take(q, 0, 8)) == (std::vector<uint64_t>{a->id, c->id}));
}

TEST(queue_gives_no_place_to_the_cancelled_and_expired) {
  const LayoutRef l = layout(2);
  Queue q;
  auto cancelled = request(l, 8), expired = request(l, 8, 0, 100), live = request(l, 8, 0, 101);
  for (const auto& r : {cancelled, expired, live}) q.push(r);
  cancelled->finish(Phase::kCancelled);
  std::vector<RequestRef> dropped;
  CHECK(ids(take(q, 0, 8, &dropped, 100)) == std::vector<uint64_t>{live->id});
  CHECK(ids(dropped) == (std::vector<uint64_t>{cancelled->id, expired->id}));
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
    CHECK(ids(take(q, 0, 8)) == ids(r));
  }
}

TEST(queue_sweeps_what_is_late) {
  const LayoutRef l = layout(2);
  Queue q;
  auto never = request(l), early = request(l, 1, 3, 10), late = request(l, 1, 0, 20);
  for (const auto& r : {never, early, late}) q.push(r);
  std::vector<RequestRef> expired;
  q.sweep(9, expired);
  CHECK(expired.empty());
  q.sweep(10, expired);
  CHECK(ids(expired) == std::vector<uint64_t>{early->id});
  CHECK_EQ(q.states()[0].earliest_deadline, 20);
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
  CHECK_EQ(q.states()[0].oldest, 20);
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
  Queue q;
  std::vector<RequestRef> model;  // in the order of pushes
  for (int step = 0; step < 20000; ++step) {
    const auto choice = random() % 10;
    if (choice < 5) {
      model.push_back(request(layouts[random() % 3], 1 + random() % 4, static_cast<int>(random() % 3)));
      q.push(model.back());
    } else if (choice < 7 && !model.empty()) {
      const auto at = model.begin() + static_cast<std::ptrdiff_t>(random() % model.size());
      CHECK(q.remove(**at) == *at);
      model.erase(at);
    } else if (!model.empty()) {
      const size_t bucket = random() % q.states().size();
      const LayoutRef l = q.layout(bucket);
      std::vector<RequestRef> want;
      for (const auto& r : model) {
        if (r->layout == l) want.push_back(r);
      }
      std::stable_sort(want.begin(), want.end(),
                       [](const auto& a, const auto& b) { return a->priority > b->priority; });
      int64_t rows = 0;
      size_t count = 0;
      while (count < want.size() && rows + want[count]->rows <= 6) rows += want[count++]->rows;
      want.resize(count);
      CHECK(ids(take(q, bucket, 6)) == ids(want));
      std::erase_if(model, [&](const auto& r) { return std::find(want.begin(), want.end(), r) != want.end(); });
    }
    CHECK_EQ(q.size(), model.size());
    int64_t rows = 0;
    for (const auto& r : model) rows += r->rows;
    CHECK_EQ(q.rows(), rows);
  }
}
