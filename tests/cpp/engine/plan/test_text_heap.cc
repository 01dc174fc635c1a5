#include <string>

#include "base/error.h"
#include "engine/plan/text_heap.h"
#include "test.h"

using namespace inferkit;

TEST(text_heap_keeps_what_it_was_given) {
  BufferPool pool;
  {
    TextHeap heap(pool, size_t{1} << 24);
    CHECK_EQ(pool.stats().outstanding, 0u);
    std::vector<std::string_view> kept;
    std::vector<std::string> wanted;
    for (size_t i = 0; i < 3000; ++i) {
      wanted.push_back(std::string(i % 97, static_cast<char>('a' + i % 26)) + std::to_string(i));
      kept.push_back(heap.copy(wanted.back()));
    }
    kept.push_back(heap.copy(wanted.emplace_back(std::string(100'000, 'z'))));
    kept.push_back(heap.copy(wanted.emplace_back("")));
    for (size_t i = 0; i < kept.size(); ++i) CHECK(kept[i] == wanted[i]);
    CHECK(pool.stats().outstanding > 1);
  }
  CHECK_EQ(pool.stats().outstanding, 0u);
}

TEST(text_heap_takes_back) {
  BufferPool pool;
  TextHeap heap(pool, size_t{1} << 20);
  char* first = heap.allocate(100);
  heap.give_back(60);
  CHECK(heap.allocate(1) == first + 40);
}

TEST(text_heap_is_bounded) {
  BufferPool pool;
  TextHeap heap(pool, 10'000);
  heap.allocate(9'000);  // the last room is given out to its end
  heap.allocate(1'000);
  CHECK_THROWS(heap.allocate(1), Error);
  TextHeap other(pool, 10'000);
  try {
    other.allocate(10'001);
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::kValidation);
    CHECK(error.reason() == Reason::kTooLarge);
  }
}

TEST(text_heap_keeps_owners_once_and_counts_them) {
  BufferPool pool;
  const auto plan = std::make_shared<int>(1), next = std::make_shared<int>(2);
  {
    TextHeap heap(pool, 1000);
    for (int i = 0; i < 50; ++i) {
      heap.keep(plan, 400);
      heap.keep(next, 400);
    }
    CHECK_EQ(plan.use_count(), 2);
    CHECK_EQ(next.use_count(), 2);
    CHECK_THROWS(heap.keep(std::make_shared<int>(3), 400), Error);
  }
  CHECK_EQ(plan.use_count(), 1);
}

TEST(text_heap_of_the_innermost_scope) {
  BufferPool pool;
  TextHeap outer(pool, 1000), inner(pool, 1000);
  const TextHeap::Scope of_outer(outer);
  {
    const TextHeap::Scope of_inner(inner);
    CHECK(&TextHeap::current() == &inner);
  }
  CHECK(&TextHeap::current() == &outer);
}
