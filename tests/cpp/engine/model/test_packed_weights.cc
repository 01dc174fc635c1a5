// The one door to what is derived from constants: each thing once, known by all that it depends on.
#include <atomic>
#include <set>
#include <thread>

#include "door.h"
#include "engine/model/packed_weights.h"
#include "memory/temp_dir.h"
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

namespace {

/// A constant in memory of its own.
Tensor constant(int64_t elements, float value, uint64_t id) {
  const std::vector<float> values(static_cast<size_t>(elements), value);
  Tensor out = make_tensor<float>({elements}, std::span<const float>(values));
  out.id = id;
  return out;
}

PackedWeights::MakeFn made_of(float value, size_t bytes, int& times) {
  return [=, &times] {
    ++times;
    const Tensor out = constant(static_cast<int64_t>(bytes / sizeof(float)), value, 0);
    return std::shared_ptr<const void>(out.owner, out.data);
  };
}

const PackedTag kTag{"build", "tier", "float32"};

}  // namespace

TEST(what_a_file_has_is_not_packed) {
  constexpr size_t kLarge = 64 << 10, kSmall = PackedWeights::kLeastShared - 4;
  const TempDir dir;
  const Tensor a = constant(100, 1, 1), b = constant(100, 2, 2);
  const Tensor* of_a[] = {&a};
  const Tensor* of_b[] = {&b};
  int times = 0;
  {
    PackedWeights packed;
    packed.get_bytes({{1}, "large", DType::kF32, ""}, of_a, made_of(3, kLarge, times), kLarge);
    packed.get_bytes({{1}, "small", DType::kF32, ""}, of_a, made_of(4, kSmall, times), kSmall);
    packed.get(key("object"), made_of(5, kLarge, times), kLarge);
    packed.save(dir / "file", 0600, kTag);
  }
  CHECK_EQ(times, 3);
  const auto file = PackedFile::open(MappedFile::open(dir / "file"), "the file", kTag, {}, 1);
  CHECK_EQ(file->sections(), size_t{1});  // small things and objects are in none
  PackedWeights packed(file, {}, 1);
  times = 0;
  // In this load the constant has another number.
  const auto found = packed.get_bytes({{7}, "large", DType::kF32, ""}, of_a, made_of(0, kLarge, times), kLarge);
  CHECK_EQ(static_cast<const float*>(found.get())[kLarge / sizeof(float) - 1], 3.0f);
  CHECK_EQ(times, 0);
  CHECK_EQ(packed.shared_bytes(), kLarge);
  // Another constant, arrangement, precision, tier, size: none is that.
  packed.get_bytes({{2}, "large", DType::kF32, ""}, of_b, made_of(0, kLarge, times), kLarge);
  packed.get_bytes({{7}, "other", DType::kF32, ""}, of_a, made_of(0, kLarge, times), kLarge);
  packed.get_bytes({{7}, "large", DType::kBF16, ""}, of_a, made_of(0, kLarge, times), kLarge);
  packed.get_bytes({{7}, "large", DType::kF32, "avx2"}, of_a, made_of(0, kLarge, times), kLarge);
  packed.get_bytes({{8}, "large", DType::kF32, ""}, of_a, made_of(0, kLarge / 2, times), kLarge / 2);
  CHECK_EQ(times, 5);
  CHECK_EQ(packed.shared_bytes(), kLarge);
  CHECK_EQ(packed.bytes(), 5 * kLarge + kLarge / 2);
}
