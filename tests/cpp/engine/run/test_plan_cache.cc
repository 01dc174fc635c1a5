// Compilations side by side: who wants a shape waits for that shape alone.
#include <atomic>
#include <chrono>
#include <thread>

#include "door.h"
#include "engine/run/plan_cache.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;
using namespace std::chrono_literals;

namespace {

std::shared_ptr<const Plan> empty_plan() { return std::make_shared<Plan>(); }

const std::vector<Shape> kOne = {{1}}, kTwo = {{2}};

}  // namespace

TEST(a_shape_compiles_while_another_does) {
  Door second_done;
  std::atomic<bool> in_time{true};
  PlanCache cache(
      [&](std::span<const Shape> shapes) {
        if (shapes[0] == Shape{1}) in_time = second_done.pass();
        return empty_plan();
      },
      std::make_shared<BufferPool>(), 4, 4);
  std::thread first([&] { (void)cache.acquire(kOne); });
  (void)cache.acquire(kTwo);
  second_done.open();
  first.join();
  CHECK(in_time);
  CHECK_EQ(cache.stats().misses, uint64_t{2});
}

TEST(a_shape_is_compiled_once) {
  Door started;
  std::atomic<int> compilations{0};
  PlanCache cache(
      [&](std::span<const Shape>) {
        if (++compilations == 1) started.open();
        std::this_thread::sleep_for(20ms);  // for the others to come
        return empty_plan();
      },
      std::make_shared<BufferPool>(), 4, 4);
  std::vector<std::thread> threads;
  threads.emplace_back([&] { (void)cache.acquire(kOne); });
  CHECK(started.pass());
  for (int i = 0; i < 3; ++i) threads.emplace_back([&] { (void)cache.acquire(kOne); });
  for (auto& thread : threads) thread.join();
  CHECK_EQ(compilations.load(), 1);
}

TEST(where_a_compilation_failed_who_waited_tries) {
  Door started;
  std::atomic<int> compilations{0};
  PlanCache cache(
      [&](std::span<const Shape>) {
        if (++compilations > 1) return empty_plan();
        started.open();
        std::this_thread::sleep_for(20ms);
        throw Error(ErrorCode::kModel, "not this time");
      },
      std::make_shared<BufferPool>(), 4, 4);
  std::thread first([&] { CHECK_THROWS(cache.acquire(kOne), Error); });
  CHECK(started.pass());
  (void)cache.acquire(kOne);
  first.join();
  CHECK_EQ(compilations.load(), 2);
}

TEST(who_waits_for_a_compilation_can_be_told_to_stop) {
  class Off final : public RunControl {
    bool look(Nanos) override { return true; }
  };
  Door started, stopped;
  PlanCache cache(
      [&](std::span<const Shape>) {
        started.open();
        CHECK(stopped.pass());
        return empty_plan();
      },
      std::make_shared<BufferPool>(), 4, 4);
  std::thread first([&] { (void)cache.acquire(kOne); });
  CHECK(started.pass());
  Off control;
  {
    const RunControl::Scope scope(&control);
    CHECK_THROWS(cache.acquire(kOne), Stopped);
  }
  stopped.open();
  first.join();
}

TEST(who_compiles_may_come_again) {
  // As a signal handler does, in the middle.
  std::unique_ptr<PlanCache> cache;
  int compilations = 0;
  cache = std::make_unique<PlanCache>(
      [&](std::span<const Shape>) {
        if (++compilations == 1) (void)cache->acquire(kOne);
        return empty_plan();
      },
      std::make_shared<BufferPool>(), 4, 4);
  (void)cache->acquire(kOne);
  CHECK_EQ(compilations, 2);
}

TEST(a_child_of_a_fork_forgets_what_its_parent_compiled) {
  Door started, forked;
  std::atomic<int> compilations{0};
  PlanCache cache(
      [&](std::span<const Shape>) {
        if (++compilations > 1) return empty_plan();
        started.open();
        CHECK(forked.pass());
        return empty_plan();
      },
      std::make_shared<BufferPool>(), 4, 4);
  std::thread first([&] { (void)cache.acquire(kOne); });
  CHECK(started.pass());
  cache.lock();  // what the handlers of a fork do: nothing is waited for
  cache.forget_compiling();
  cache.unlock();
  (void)cache.acquire(kOne);
  CHECK_EQ(compilations.load(), 2);
  forked.open();
  first.join();
}
