#include <random>
#include <vector>

#include "graph/tensor_list.h"
#include "test.h"

using namespace inferkit;

namespace {

Tensor numbered(int64_t i) { return make_tensor<int64_t>({}, {&i, 1}); }

std::vector<int64_t> numbers(const TensorItems& items) {
  std::vector<int64_t> out;
  for (size_t i = 0; i < items.size(); ++i) out.push_back(*items[i].as<int64_t>());
  return out;
}

}  // namespace

TEST(sequences_are_what_lists_are_after_any_insertions_and_erasures) {
  std::mt19937 draw(7);
  for (const int inserts : {9, 6, 5}) {  // of ten steps: growing, growing slowly, up and down
    std::vector<int64_t> want;
    TensorItems got;
    for (int64_t step = 0; step < 3000; ++step) {
      if (want.empty() || draw() % 10 < static_cast<unsigned>(inserts)) {
        const size_t at = draw() % 3 == 0 ? want.size() : draw() % (want.size() + 1);
        want.insert(want.begin() + static_cast<std::ptrdiff_t>(at), step);
        got = got.with(at, numbered(step));
      } else {
        const size_t at = draw() % 3 == 0 ? want.size() - 1 : draw() % want.size();
        want.erase(want.begin() + static_cast<std::ptrdiff_t>(at));
        got = got.without(at);
      }
      CHECK(got.size() == want.size());
      CHECK(got.empty() == want.empty());
      if (step % 97 == 0 || step > 2990) CHECK(numbers(got) == want);
    }
    while (!want.empty()) {  // from the front, which leaves blocks with little in them
      const size_t at = want.size() > 5 ? draw() % 5 : 0;
      want.erase(want.begin() + static_cast<std::ptrdiff_t>(at));
      got = got.without(at);
      if (want.size() % 61 == 0) CHECK(numbers(got) == want);
    }
    CHECK(got.empty());
  }
}

TEST(sequences_of_any_length_are_made_of_a_vector) {
  for (const int64_t n : {0, 1, 255, 256, 257, 512, 1000}) {
    std::vector<Tensor> items;
    std::vector<int64_t> want;
    for (int64_t i = 0; i < n; ++i) {
      items.push_back(numbered(i));
      want.push_back(i);
    }
    CHECK(numbers(TensorItems(items)) == want);
  }
}

TEST(a_sequence_stays_as_it_is_when_others_are_made_of_it) {
  TensorItems base;
  for (int64_t i = 0; i < 700; ++i) base = base.with(base.size(), numbered(i));
  const std::vector<int64_t> before = numbers(base);
  const TensorItems longer = base.with(base.size(), numbered(-1)), other = base.with(base.size(), numbered(-2));
  const TensorItems middle = base.with(300, numbered(-3)), shorter = base.without(300);
  CHECK(numbers(base) == before);
  CHECK(*longer[700].as<int64_t>() == -1);
  CHECK(*other[700].as<int64_t>() == -2);
  CHECK(*middle[300].as<int64_t>() == -3);
  CHECK(*middle[301].as<int64_t>() == 300);
  CHECK(*shorter[300].as<int64_t>() == 301);
}

TEST(sequences_that_grow_one_by_one_share_what_they_have) {
  // All of 5000 that were made on the way are kept: copies of all tensors would be 12 million.
  std::vector<TensorItems> all(1);
  const Tensor one = numbered(0);
  for (int64_t i = 0; i < 5000; ++i) all.push_back(all.back().with(all.back().size(), one));
  CHECK(one.owner.use_count() < 5000 * 130);
  CHECK(all[4321].size() == 4321);
}

TEST(what_no_sequence_holds_any_more_is_freed) {
  TensorItems items;
  for (int64_t i = 0; i < 600; ++i) items = items.with(items.size(), numbered(i));
  const Tensor last = numbered(1);
  {
    const TensorItems longer = items.with(items.size(), last);
    CHECK(last.owner.use_count() == 2);
  }
  CHECK(last.owner.use_count() == 1);
  items = items.with(3, last).without(3);
  CHECK(last.owner.use_count() == 1);
}
