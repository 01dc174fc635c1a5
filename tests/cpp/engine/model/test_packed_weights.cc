// The one door to what is derived from constants: each thing once, known by all that it depends on.
#include <atomic>
#include <set>
#include <thread>

#include "door.h"
#include "engine/model/packed_weights.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

PackedKey key(std::string kind) { return {{1}, std::move(kind), DType::kF32, ""}; }

}  // namespace

TEST(one_weight_is_packed_while_another_is) {
  PackedWeights packed;
  Door second_done;
  std::atomic<bool> in_time{true};
  const auto thing = std::make_shared<int>(7);
  std::thread first([&] {
    packed.get(
        key("first"),
        [&] {
          in_time = second_done.pass();
          return thing;
        },
        10);
  });
  CHECK(packed.get(key("second"), [&] { return thing; }, 5) == thing);
  second_done.open();
  first.join();
  CHECK(in_time);
  CHECK_EQ(packed.bytes(), size_t{15});
  const auto never = []() -> std::shared_ptr<const void> { throw Error(ErrorCode::kModel, "made twice"); };
  CHECK(packed.get(key("first"), never, 10));
}

TEST(who_packs_may_come_again) {
  // As a signal handler does, in the middle.
  PackedWeights packed;
  const auto thing = std::make_shared<int>(7);
  const auto inner = [&] { return thing; };
  CHECK(packed.get(key("w"), [&] { return packed.get(key("w"), inner, 1); }, 1) == thing);
}

TEST(a_weight_that_could_not_be_packed_is_packed_again) {
  PackedWeights packed;
  const auto fail = []() -> std::shared_ptr<const void> { throw Error(ErrorCode::kModel, "no"); };
  CHECK_THROWS(packed.get(key("w"), fail, 10), Error);
  CHECK_EQ(packed.bytes(), size_t{0});
  CHECK(packed.get(key("w"), [] { return std::make_shared<int>(1); }, 10) != nullptr);
}

TEST(things_that_differ_in_anything_are_kept_apart) {
  PackedWeights packed;
  const PackedKey keys[] = {{{1}, "panels", DType::kF32, ""},    {{2}, "panels", DType::kF32, ""},
                            {{1, 2}, "panels", DType::kF32, ""}, {{1}, "rows", DType::kF32, ""},
                            {{1}, "panels", DType::kBF16, ""},   {{1}, "panels", DType::kF32, "avx2"},
                            {{2, 1}, "panels", DType::kF32, ""}};
  std::set<const void*> things;
  for (const auto& k : keys) things.insert(packed.get(k, [] { return std::make_shared<int>(0); }, 1).get());
  CHECK_EQ(things.size(), std::size(keys));
  CHECK_EQ(packed.bytes(), std::size(keys));
  for (const auto& k : keys) CHECK(things.contains(packed.get(k, [] { return std::make_shared<int>(0); }, 1).get()));
}
