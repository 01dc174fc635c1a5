// Answers that are kept for equal requests.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "batching/batcher.h"
#include "batching/fake_runner.h"
#include "batching/swap_runner.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

BatcherOptions caching(size_t bytes = 1 << 20) {
  BatcherOptions options;
  options.result_cache = bytes;
  return options;
}

bool answers(Batcher& batcher, const RequestRef& request, float x) {
  return batcher.wait(*request) == Waited::kDone && request->phase() == Phase::kResult &&
         answer(*request) == std::vector<float>{2 * x + 1, 2 * x + 1};
}

}  // namespace

TEST(cache_answers_equal_requests_without_a_run) {
  Rig rig(caching());
  CHECK(answers(*rig.batcher, rig.row(1), 1));
  const RequestRef hit = rig.row(1);
  CHECK(hit->done() && answers(*rig.batcher, hit, 1));
  CHECK(answers(*rig.batcher, rig.submit({1, 1}, {1, 2}), 1));  // with the batch axis
  CHECK(answers(*rig.batcher, rig.row(2), 2));
  CHECK_EQ(rig.model->batches().size(), 2u);
  const BatcherStats stats = rig.batcher->stats();
  CHECK_EQ(stats.completed, 4u);
  CHECK_EQ(stats.total.count(), 2u);  // the latencies of runs
  CHECK_EQ(stats.cache.hits, 2u);
  CHECK_EQ(stats.cache.misses, 2u);
  CHECK_EQ(stats.cache.entries, 2u);
  CHECK(stats.cache.bytes > 0 && stats.cache.bytes < 1 << 20);
  // Its time had passed: no answer, however near it lies.
  CHECK(error_of([&] { rig.row(1, {.deadline = 1}); }).code == ErrorCode::kDeadline);
}

TEST(cache_keeps_a_requests_rows_and_not_its_batch) {
  BatcherOptions options = caching();
  options.max_batch_size = 1024;
  Rig rig(options);
  rig.model->shut();
  const RequestRef first = rig.row(0);
  rig.model->wait_for_runs(1);
  std::vector<float> many(2 * 1000, 7.0f);
  const RequestRef large = rig.submit(many, {1000, 2}), small = rig.row(3);
  rig.model->open();
  CHECK(rig.batcher->wait(*large) == Waited::kDone);
  CHECK(answers(*rig.batcher, small, 3) && answers(*rig.batcher, first, 0));
  CHECK_EQ(rig.model->batches().size(), 2u);
  const RequestRef hit = rig.row(3);
  CHECK(hit->done() && answers(*rig.batcher, hit, 3));
  CHECK((hit->outputs->outputs[0].shape == Shape{1, 2}));
  const RequestRef again = rig.submit(many, {1000, 2});
  CHECK(again->done() && answer(*again) == std::vector<float>(2000, 15.0f));
}

TEST(cache_lets_go_of_what_was_used_longest_ago) {
  Rig probe(caching());
  CHECK(answers(*probe.batcher, probe.row(1), 1));
  const size_t one = probe.batcher->stats().cache.bytes;
  BatcherOptions options = caching(3 * one);
  options.max_batch_size = 1024;
  Rig rig(options);
  for (const float x : {1, 2, 3}) CHECK(answers(*rig.batcher, rig.row(x), x));
  CHECK(rig.row(1)->done());  // used again
  CHECK(answers(*rig.batcher, rig.row(4), 4));
  BatcherStats stats = rig.batcher->stats();
  CHECK_EQ(stats.cache.entries, 3u);
  CHECK_EQ(stats.cache.evictions, 1u);
  CHECK_EQ(stats.cache.bytes, 3 * one);
  for (const float x : {1, 3, 4}) CHECK(rig.row(x)->done());
  const size_t before = rig.model->batches().size();
  CHECK(answers(*rig.batcher, rig.row(2), 2));
  CHECK_EQ(rig.model->batches().size(), before + 1);
  // Larger than all there may be: not kept, and nothing makes room for it.
  CHECK(rig.batcher->wait(*rig.submit(std::vector<float>(2048, 1.0f), {1024, 2})) == Waited::kDone);
  CHECK_EQ(rig.batcher->stats().cache.entries, 3u);
}

TEST(cache_keeps_no_errors) {
  Rig rig(caching());
  for (int i = 0; i < 2; ++i) {
    const RequestRef bad = rig.row(FakeRunner::kPoison);
    CHECK(rig.batcher->wait(*bad) == Waited::kDone && bad->phase() == Phase::kError);
  }
  CHECK_EQ(rig.model->batches().size(), 2u);
  CHECK_EQ(rig.batcher->stats().cache.entries, 0u);
  CHECK(error_of([&] { rig.row(__builtin_nanf("")); }).reason == Reason::kNonFinite);  // checked before it is looked up
}

TEST(cache_has_nothing_of_what_never_ran) {
  Rig rig(caching());
  rig.model->shut();
  const RequestRef first = rig.row(1);
  rig.model->wait_for_runs(1);
  const RequestRef second = rig.row(2);
  CHECK(rig.batcher->cancel(*second));
  rig.model->open();
  CHECK(answers(*rig.batcher, first, 1));
  CHECK(answers(*rig.batcher, rig.row(2), 2));  // it never ran
  CHECK_EQ(rig.model->batches().size(), 2u);
}

TEST(cache_never_gives_an_answer_of_the_model_before) {
  const auto old = std::make_shared<FakeRunner>(), now = std::make_shared<FakeRunner>();
  const auto runner = std::make_shared<SwapRunner>(old);
  const auto pool = std::make_shared<BufferPool>();
  {
    Batcher batcher(runner, caching(), pool);
    const auto row = [&](float x) {
      const float values[2] = {x, x};
      return batcher.submit(std::vector{StridedView::contiguous({DType::kF32, {2}, values})});
    };
    CHECK(answers(batcher, row(1), 1));
    CHECK_EQ(batcher.stats().cache.entries, 1u);
    old->shut();
    const RequestRef late = row(2);
    old->wait_for_runs(2);
    const Intake::Checks& checks = batcher.checks_for(*now);
    runner->swap(now);
    batcher.follow(checks);
    CHECK_EQ(batcher.stats().cache.entries, 0u);  // at once
    const RequestRef again = row(1);
    old->open();
    CHECK(answers(batcher, late, 2));  // by the model that it began with, which is not kept
    CHECK(answers(batcher, again, 1) && answers(batcher, row(2), 2));
    CHECK_EQ(old->batches().size(), 2u);
    CHECK_EQ(now->batches().size(), 2u);
    CHECK_EQ(batcher.stats().cache.hits, 0u);
    CHECK_EQ(batcher.stats().cache.entries, 2u);
  }
  CHECK_EQ(pool->stats().outstanding, 0u);
}

TEST(cache_is_empty_once_the_batcher_is_closed) {
  Rig rig(caching());
  CHECK(answers(*rig.batcher, rig.row(1), 1));
  CHECK(rig.batcher->close(true));
  CHECK_EQ(rig.batcher->stats().cache.entries, 0u);
  CHECK_EQ(rig.pool->stats().outstanding, 0u);
}

namespace {

/// Its answer is its number.
class Numbered final : public Runner {
 public:
  explicit Numbered(float number) : number_(number) {}
  std::span<const PortSpec> inputs() const override { return ports_; }
  std::span<const PortSpec> outputs() const override { return ports_; }
  bool needs_gil() const override { return false; }
  int64_t estimate_nanos(std::span<const Shape>) const override { return 1000; }
  Status run(std::span<const TensorView> inputs, OutputSink& sink) noexcept override {
    auto* y = static_cast<float*>(sink.allocate(0, DType::kF32, inputs[0].shape));
    std::fill(y, y + inputs[0].shape.elements(), number_);
    return {};
  }

 private:
  const float number_;
  const std::vector<PortSpec> ports_{{"x", DType::kF32, {Shape::kFree, 2}}};
};

}  // namespace

// Whoever submits after a swap never gets an answer of a model before, whether one that was kept or one under way.
TEST(cache_and_company_among_swaps_are_of_no_model_before) {
  const auto runner = std::make_shared<SwapRunner>(std::make_shared<Numbered>(0.0f));
  BatcherOptions options = caching();
  options.workers = 2;
  options.max_batch_size = 4;
  options.coalesce = true;
  const auto pool = std::make_shared<BufferPool>();
  {
    Batcher batcher(runner, options, pool);
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0}, asked{0};
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        for (int n = 0; !stop; ++n) {
          const float x = float(n % 3), values[2] = {x, x};
          const uint64_t before = runner->generation();
          const RequestRef r = batcher.submit(std::vector{StridedView::contiguous({DType::kF32, {2}, values})});
          if (n % 7 == 0) batcher.cancel(*r);
          CHECK(batcher.wait(*r) == Waited::kDone);
          if (r->phase() != Phase::kResult) continue;
          const float number = answer(*r)[0];
          wrong += number < float(before) || number > float(runner->generation());
          ++asked;
        }
      });
    }
    const auto seen = [&] {  // threads that take turns on one core meet rarely
      const BatcherStats stats = batcher.stats();
      return stats.cache.hits > 0 && stats.coalesced > 0;
    };
    for (int n = 1; n <= 1000 || asked < 5000 || !seen(); ++n) {
      runner->swap(std::make_shared<Numbered>(float(n)));
      std::this_thread::yield();
    }
    stop = true;
    threads.clear();
    CHECK_EQ(wrong.load(), 0);
  }
  CHECK_EQ(pool->stats().outstanding, 0u);
}

TEST(cache_compares_bytes_not_hashes) {
  FakeRunner model;
  BufferPool pool;
  ResultCache cache(model.inputs(), pool, 1 << 20);
  const LayoutRef layout = std::make_shared<RowLayout>(std::vector{Shape{2}}, std::vector{size_t{8}});
  const auto request = [&](float x, uint64_t hash) {
    RequestRef r(new Request(layout, 1, true, {}));
    r->by_content = std::make_unique<ByContent>(hash, 0);
    r->inputs = pool.acquire(8, "request");
    for (int i = 0; i < 2; ++i) r->inputs.as<float>()[i] = x;
    return r;
  };
  const auto find = [&](Request& r) {
    return cache.find(42, {model.inputs(), *layout, 1, 0, r.inputs}, r.by_content->generation);
  };
  BatchOutputs outputs;
  outputs.outputs.resize(1);
  outputs.outputs[0] = {DType::kF32, {1, 2}, 0, pool.acquire(8), {}};
  std::memset(outputs.outputs[0].buffer.data(), 0, 8);
  const RequestRef kept = request(1, 42), same = request(1, 42), other = request(2, 42);
  cache.keep(*kept, outputs, 0, 0);
  CHECK(!kept->inputs && find(*same) && !find(*other));
  cache.keep(*other, outputs, 0, 0);  // takes the place of the one with its hash
  CHECK(!find(*same));
  CHECK_EQ(cache.figures().entries, 1u);
  // Another layout of the same shapes: the table of them forgets.
  const RowLayout equal({Shape{2}}, {8});
  const RequestRef two = request(2, 42);
  CHECK(cache.find(42, {model.inputs(), equal, 1, 0, two->inputs}, 0));
}

TEST(cache_leaves_memory_to_requests) {
  const auto pool = std::make_shared<BufferPool>(PoolOptions{.max_bytes = 32 << 10});
  Batcher batcher(std::make_shared<FakeRunner>(), caching(1 << 30), pool);
  for (int i = 0; i < 300; ++i) {  // below the numbers with a meaning
    const float x = float(i), values[2] = {x, x};
    const RequestRef r = batcher.submit(std::vector{StridedView::contiguous({DType::kF32, {2}, values})});
    CHECK(answers(batcher, r, x));
  }
  CHECK(batcher.stats().cache.evictions > 0 && batcher.stats().cache.bytes <= 16 << 10);
}
