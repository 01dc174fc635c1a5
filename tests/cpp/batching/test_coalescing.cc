// Equal requests that are under way at once: computed once, each with an end of its own.
#include <atomic>
#include <random>
#include <thread>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "batching/swap_runner.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

constexpr Nanos kMilli = 1'000'000;

BatcherOptions coalescing() {
  BatcherOptions options;
  options.max_batch_size = 4;
  options.coalesce = true;
  return options;
}

bool ends(Rig& rig, const RequestRef& request, Phase phase) {
  return rig.batcher->wait(*request) == Waited::kDone && request->phase() == phase;
}

bool answers(Rig& rig, const RequestRef& request, float x) {
  return ends(rig, request, Phase::kResult) && answer(*request) == std::vector<float>{2 * x + 1, 2 * x + 1};
}

/// Holds the only worker inside a run of its own.
RequestRef block(Rig& rig, float x = 0) {
  rig.model->shut();
  const size_t before = rig.model->batches().size();
  RequestRef first = rig.row(x);
  rig.model->wait_for_runs(before + 1);
  return first;
}

}  // namespace

TEST(coalescing_computes_equal_requests_once) {
  Rig rig(coalescing());
  const RequestRef running = block(rig, 1);
  const RequestRef joins = rig.row(1), other = rig.row(2), waits = rig.row(2);
  CHECK_EQ(rig.batcher->stats().queue_depth, 1u);  // those that follow take no place
  rig.model->open();
  for (const auto& r : {running, joins}) CHECK(answers(rig, r, 1));
  for (const auto& r : {other, waits}) CHECK(answers(rig, r, 2));
  CHECK((rig.model->batches() == std::vector<Shape>{{1, 2}, {1, 2}}));
  const BatcherStats stats = rig.batcher->stats();
  CHECK_EQ(stats.completed, 4u);
  CHECK_EQ(stats.coalesced, 2u);
  CHECK_EQ(joins->batch_id, running->batch_id);
  CHECK(joins->times.started.load() >= joins->times.enqueued.load());
  // Over is over: nothing is kept.
  CHECK(answers(rig, rig.row(1), 1));
  CHECK_EQ(rig.model->batches().size(), 3u);
}

TEST(coalescing_takes_equal_bytes_in_equal_shapes) {
  Rig rig(coalescing(), {Shape::kFree, Shape::kFree});
  const RequestRef first = block(rig);
  const RequestRef four = rig.submit({1, 1, 1, 1}, {4}), rows = rig.submit({1, 1, 1, 1}, {2, 2}),
                   two = rig.submit({1, 1}, {2}), batch = rig.submit({1, 1}, {1, 2}), zero = rig.submit({0.0f, 1}, {2}),
                   negative = rig.submit({-0.0f, 1}, {2});
  CHECK_EQ(rig.batcher->stats().coalesced, 1u);  // a row with a batch axis is the row
  rig.model->open();
  for (const auto& r : {first, four, rows, two, batch, zero, negative}) CHECK(ends(rig, r, Phase::kResult));
  CHECK(batch->batch_id == two->batch_id && !batch->single_row && two->single_row);
}

TEST(coalescing_goes_on_for_who_is_left) {
  Rig rig(coalescing());
  const RequestRef blocked = block(rig);
  const RequestRef leads = rig.row(1), next = rig.row(1), last = rig.row(1);
  CHECK(rig.batcher->cancel(*leads));
  CHECK_EQ(rig.batcher->stats().queue_depth, 1u);  // the next one has its place
  CHECK(rig.batcher->cancel(*next));
  const RequestRef late = rig.row(1);
  CHECK_EQ(rig.batcher->stats().queue_depth, 1u);
  rig.model->open();
  CHECK(answers(rig, last, 1) && answers(rig, late, 1));
  CHECK(leads->phase() == Phase::kCancelled && next->phase() == Phase::kCancelled);
  CHECK_EQ(rig.model->batches().size(), 2u);
  // One that runs goes on as well, for those that follow it.
  const RequestRef runs = block(rig, 3);
  const RequestRef follows = rig.row(3), ends_early = rig.row(3);
  CHECK(rig.batcher->cancel(*runs) && rig.batcher->cancel(*ends_early));
  const RequestRef own = rig.row(3);  // nobody joins what its caller has given up
  rig.model->open();
  CHECK(answers(rig, follows, 3) && answers(rig, own, 3));
  CHECK_EQ(rig.model->batches().size(), 4u);
  blocked->outputs = nullptr;
}

TEST(coalescing_keeps_each_to_its_own_time) {
  ManualClock clock(kMilli);
  Rig rig(coalescing(), {Shape::kFree, 2}, clock);
  const RequestRef first = block(rig);
  const auto by = [&](Nanos deadline) { return rig.row(1, {.deadline = deadline}); };
  const RequestRef leads = by(10 * kMilli), later = by(20 * kMilli), never = by(kNever);
  const RequestRef sooner = by(5 * kMilli);  // would have gone first: it does
  CHECK_EQ(rig.batcher->stats().coalesced, 2u);
  CHECK_EQ(rig.batcher->stats().queue_depth, 2u);
  clock.advance(9 * kMilli);
  rig.batcher->poke();
  CHECK(ends(rig, leads, Phase::kExpired) && ends(rig, sooner, Phase::kExpired));
  CHECK(!later->done());
  clock.advance(10 * kMilli);
  rig.batcher->poke();
  CHECK(ends(rig, later, Phase::kExpired));
  rig.model->open();
  CHECK(answers(rig, never, 1) && answers(rig, first, 0));
  CHECK_EQ(rig.model->batches().size(), 2u);
  // Of one that runs, too.
  const RequestRef runs = block(rig, 4);
  const RequestRef follows = rig.row(4, {.deadline = clock.now() + kMilli});
  clock.advance(kMilli);
  rig.batcher->poke();
  CHECK(ends(rig, follows, Phase::kExpired));
  rig.model->open();
  CHECK(answers(rig, runs, 4));
}

TEST(coalescing_is_led_on_by_who_has_least_time) {
  ManualClock clock(kMilli);
  BatcherOptions options = coalescing();
  options.max_batch_size = 1;
  Rig rig(options, {Shape::kFree, 2}, clock);
  const RequestRef blocked = block(rig);
  const auto by = [&](float x, Nanos deadline) { return rig.row(x, {.deadline = deadline}); };
  const RequestRef leads = by(1, 10 * kMilli), never = by(1, kNever), soon = by(1, 20 * kMilli),
                   later = by(1, 40 * kMilli);
  CHECK_EQ(rig.batcher->stats().coalesced, 3u);
  const RequestRef other = by(2, 30 * kMilli);
  CHECK(rig.batcher->cancel(*leads));
  CHECK_EQ(rig.batcher->stats().queue_depth, 2u);
  rig.model->open();
  for (const auto& r : {never, soon, later}) CHECK(answers(rig, r, 1));
  CHECK(answers(rig, other, 2) && answers(rig, blocked, 0));
  CHECK_EQ(rig.model->batches().size(), 3u);
  CHECK(soon->batch_id < other->batch_id);  // the one with 20 ms is what the queue went by
  CHECK(never->batch_id == soon->batch_id && later->batch_id == soon->batch_id);
}

TEST(coalescing_never_makes_a_request_wait_for_one_that_goes_later) {
  BatcherOptions options = coalescing();
  options.clients = {{"a", {}}, {"b", {}}};
  Rig rig(options);
  const RequestRef blocked = block(rig);
  const RequestRef low = rig.row(1, {.priority = -1}), high = rig.row(1, {.priority = 1}),
                   middle = rig.row(1);  // behind the high one
  CHECK_EQ(rig.batcher->stats().coalesced, 1u);
  const RequestRef a = rig.row(2, {.client = rig.batcher->client("a")}),
                   b = rig.row(2, {.client = rig.batcher->client("b")}),
                   again = rig.row(2, {.client = rig.batcher->client("a")});
  CHECK_EQ(rig.batcher->stats().coalesced, 2u);
  // What runs is over before anything else would be.
  const RequestRef any = rig.row(0, {.priority = 5, .client = rig.batcher->client("b")});
  CHECK_EQ(rig.batcher->stats().coalesced, 3u);
  rig.model->open();
  for (const auto& r : {low, high, middle}) CHECK(answers(rig, r, 1));
  for (const auto& r : {a, b, again}) CHECK(answers(rig, r, 2));
  CHECK(answers(rig, any, 0) && answers(rig, blocked, 0));
  for (const ClientFigures& c : rig.batcher->clients()) CHECK_EQ(c.waiting, 0u);
}

TEST(coalescing_shares_an_error) {
  Rig rig(coalescing());
  const RequestRef first = block(rig);
  const RequestRef bad = rig.row(FakeRunner::kPoison), as_bad = rig.row(FakeRunner::kPoison), good = rig.row(1);
  rig.model->open();
  CHECK(ends(rig, bad, Phase::kError) && ends(rig, as_bad, Phase::kError) && answers(rig, good, 1));
  CHECK(as_bad->status.message == "poisoned");
  CHECK(ends(rig, first, Phase::kResult));
  CHECK_EQ(rig.batcher->stats().failed, 2u);
}

TEST(coalescing_is_bounded) {
  BatcherOptions options = coalescing();
  options.max_queue_size = 2;
  Rig rig(options);
  const RequestRef running = block(rig, 1);
  std::vector<RequestRef> all;
  for (int i = 0; i < 4; ++i) all.push_back(rig.row(1));  // two follow, two wait as any other
  CHECK_EQ(rig.batcher->stats().coalesced, 2u);
  CHECK_EQ(rig.batcher->stats().queue_depth, 2u);
  CHECK(error_of([&] { rig.row(1); }).code == ErrorCode::kQueueFull);
  // Whoever takes over has a place, though the queue is full.
  CHECK(rig.batcher->cancel(*all[2]) && rig.batcher->cancel(*all[0]));
  rig.model->open();
  CHECK(answers(rig, running, 1) && answers(rig, all[1], 1) && answers(rig, all[3], 1));
  CHECK_EQ(rig.batcher->stats().queue_depth, 0u);
}

TEST(coalescing_forgets_those_that_have_ended) {
  Rig rig(coalescing());
  const RequestRef running = block(rig, 1);
  for (int i = 0; i < 5000; ++i) CHECK(rig.batcher->cancel(*rig.row(1)));  // far more than may follow at once
  CHECK_EQ(rig.batcher->stats().coalesced, 5000u);
  rig.model->open();
  CHECK(answers(rig, running, 1));
}

TEST(coalescing_ends_when_the_batcher_is_closed) {
  Rig rig(coalescing());
  const RequestRef running = block(rig, 1);
  const RequestRef follows = rig.row(1), waits = rig.row(2), behind = rig.row(2);
  rig.batcher->refuse_all();
  CHECK(waits->phase() == Phase::kClosed && behind->phase() == Phase::kClosed);
  CHECK(!follows->done());
  rig.batcher->end_running();
  CHECK(running->phase() == Phase::kClosed && follows->phase() == Phase::kClosed);
  rig.model->open();
  CHECK(rig.batcher->close(false));
  CHECK_EQ(rig.batcher->stats().rejected, 4u);
}

TEST(coalescing_is_of_one_model) {
  const auto old = std::make_shared<FakeRunner>(), now = std::make_shared<FakeRunner>();
  const auto runner = std::make_shared<SwapRunner>(old);
  Batcher batcher(runner, coalescing(), std::make_shared<BufferPool>());
  const float values[2] = {1, 1};
  const auto submit = [&] { return batcher.submit(std::vector{StridedView::contiguous({DType::kF32, {2}, values})}); };
  old->shut();
  const RequestRef before = submit();
  old->wait_for_runs(1);
  const RequestRef follows = submit();
  runner->swap(now);
  const RequestRef after = submit();  // the old model's answer is none to it
  CHECK_EQ(batcher.stats().coalesced, 1u);
  old->open();
  for (const auto& r : {before, follows, after}) CHECK(batcher.wait(*r) == Waited::kDone);
  CHECK_EQ(old->batches().size(), 1u);
  CHECK_EQ(now->batches().size(), 1u);
}

TEST(coalescing_compares_bytes_not_hashes) {
  FakeRunner model;
  BufferPool pool;
  Coalescer coalescer(model.inputs(), 0, kAgeing);
  const LayoutRef layout = std::make_shared<RowLayout>(std::vector{Shape{2}}, std::vector{size_t{8}});
  const auto request = [&](float x) {
    RequestRef r(new Request(layout, 1, true, {}));
    r->by_content = std::make_unique<ByContent>(42, 0);  // of all
    r->inputs = pool.acquire(8, "request");
    for (int i = 0; i < 2; ++i) r->inputs.as<float>()[i] = x;
    return r;
  };
  const RequestRef one = request(1), two = request(2), two_again = request(2);
  CHECK(!coalescer.join_or_lead(one) && !coalescer.join_or_lead(two));
  CHECK(coalescer.join_or_lead(two_again));
  CHECK(!two_again->inputs && coalescer.waited_for(*two) && !coalescer.waited_for(*one));
  for (const auto& r : {one, two}) {
    RequestList followers;
    coalescer.finish(*r, followers);
    CHECK(followers.empty() == (r == one));
  }
}

TEST(content_is_told_apart_by_every_byte) {
  const std::vector<PortSpec> ports{{"x", DType::kU8, {Shape::kFree, Shape::kFree}}};
  BufferPool pool;
  const ContentHash hash;
  std::mt19937 random(1);
  for (const size_t size : {1, 7, 8, 15, 16, 63, 64, 65, 127, 128, 1000}) {
    const RowLayout layout({Shape{int64_t(size)}}, {size});
    Buffer a = pool.acquire(size), b = pool.acquire(size);
    for (size_t i = 0; i < size; ++i) a.as<uint8_t>()[i] = b.as<uint8_t>()[i] = uint8_t(random());
    const Content mine{ports, layout, 1, 0, a}, other{ports, layout, 1, 0, b};
    CHECK(same_content(mine, other) && hash.of(mine) == hash.of(other));
    for (size_t i = 0; i < size; ++i) {
      b.as<uint8_t>()[i] ^= uint8_t(1 << i % 8);
      CHECK(!same_content(mine, other) && hash.of(mine) != hash.of(other));
      b.as<uint8_t>()[i] ^= uint8_t(1 << i % 8);
    }
    CHECK(ContentHash().of(mine) != hash.of(mine));  // a key of its own
  }
}
