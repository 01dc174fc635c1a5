#include <set>
#include <stdexcept>
#include <thread>

#include "base/cat.h"
#include "batching/fake_runner.h"
#include "batching/tags.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {
using Pairs = std::vector<std::pair<std::string_view, std::string_view>>;

TagKey key_of(const Pairs& pairs) {
  TagKey key;
  for (const auto& [name, value] : pairs) key.add(name, value);
  return key;
}

bool refused(std::string_view name, std::string_view value) {
  try {
    key_of({{name, value}});
  } catch (const std::invalid_argument&) {
    return true;
  }
  return false;
}

TagFigures figures_of(const Batcher& batcher, const TagList& tags) {
  for (const TagFigures& one : batcher.tags()) {
    if (one.tags == tags) return one;
  }
  return {};
}
}  // namespace

TEST(tags_are_one_set_in_any_order) {
  TagTable table(4);
  TagSet& set = table.find(key_of({{"b", "2"}, {"a", "1"}, {"c", "3"}}));
  CHECK_EQ(&table.find(key_of({{"c", "3"}, {"a", "1"}, {"b", "2"}})), &set);
  CHECK((set.tags == TagList{{"a", "1"}, {"b", "2"}, {"c", "3"}}));
  CHECK_EQ(set.id, 1);
  CHECK(&table.find(key_of({{"b", "2"}, {"a", "1"}})) != &set);
  CHECK(&table.find(key_of({{"a", "1"}, {"b", "2"}, {"c", "4"}})) != &set);
  CHECK_EQ(table.figures().size(), 3u);
}

TEST(tags_whose_bytes_could_be_taken_for_others_are_not) {
  TagTable table(100);
  std::set<TagSet*> found;
  const std::vector<Pairs> all{{{"a", "b"}},
                               {{"a", "b"}, {"c", "d"}},
                               {{"a", std::string_view("b\0c=\1d", 6)}},
                               {{"a", "bc=\1d"}},
                               {{"a", std::string_view("\0", 1)}},
                               {{"a", std::string_view("\0\0", 2)}},
                               {{"ab", "c"}},
                               {{"a", "=\1b"}},
                               {{"a", "="}, {"b", "\1"}}};
  for (const Pairs& pairs : all) found.insert(&table.find(key_of(pairs)));
  CHECK_EQ(found.size(), all.size());
}

TEST(tags_beyond_the_bound_are_one_set) {
  TagTable table(2);
  TagSet& first = table.find(key_of({{"n", "0"}}));
  table.find(key_of({{"n", "1"}}));
  CHECK_EQ(table.figures().size(), 2u);
  TagSet& others = table.find(key_of({{"n", "2"}}));
  CHECK_EQ(&table.find(key_of({{"n", "3"}})), &others);
  CHECK_EQ(&table.find(key_of({{"n", "0"}})), &first);
  CHECK((others.tags == TagList{{TagTable::kOthers, TagTable::kOthersAre}}));
  CHECK_EQ(others.id, 3);
  CHECK_EQ(table.figures().size(), 3u);
  CHECK((table.figures().back().tags == others.tags));
}

TEST(tags_that_can_be_no_labels_are_refused) {
  for (const char* name : {"", "1", "1a", "a-b", "a b", "__a", "a\n", "\xc3\xa9", "batcher", "outcome", "overflow"}) {
    CHECK(refused(name, "x"));
  }
  for (const char* name : {"a", "A", "_", "_1", "a__b", "le", "Batcher"}) CHECK(!refused(name, "x"));
  CHECK(!refused(std::string(TagKey::kLongestName, 'a'), std::string(TagKey::kLongestValue, 'x')));
  CHECK(refused(std::string(TagKey::kLongestName + 1, 'a'), "x"));
  CHECK(refused("a", std::string(TagKey::kLongestValue + 1, 'x')));
  CHECK(refused("a", ""));
}

TEST(tags_are_so_many_at_most_and_each_is_given_once) {
  TagKey key;
  const std::string longest(TagKey::kLongestValue, 'x');
  std::vector<std::string> names;
  for (size_t i = 0; i <= TagKey::kMost; ++i) names.push_back(cat(std::string(TagKey::kLongestName - 1, 'a'), i));
  for (size_t i = TagKey::kMost; i-- > 0;) key.add(names[i], longest);
  CHECK_THROWS(key.add(names.back(), "x"), std::invalid_argument);
  TagTable table(1);
  const TagSet& set = table.find(key);
  CHECK_EQ(set.tags.size(), TagKey::kMost);
  for (size_t i = 0; i < TagKey::kMost; ++i) CHECK(set.tags[i].first == names[i] && set.tags[i].second == longest);
  CHECK_THROWS(key_of({{"a", "1"}, {"b", "2"}, {"a", "3"}}), std::invalid_argument);
}

TEST(tags_are_found_by_many_threads) {
  TagTable table(50);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i) {
        const std::string value = std::to_string((i + t) % 60);
        TagSet& set = table.find(key_of({{"n", value}}));
        CHECK(set.id == 51 || set.tags[0].second == value);
        set.ended(Phase::kResult);
        set.answered(2, 3);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint64_t completed = 0, rows = 0;
  std::set<uint16_t> ids;
  for (const TagFigures& one : table.figures()) {
    completed += one.completed;
    rows += one.rows;
    CHECK_EQ(one.nanos, Nanos(3 * one.completed));
    CHECK(ids.insert(one.id).second);
  }
  CHECK_EQ(completed, 8000u);
  CHECK_EQ(rows, 16000u);
  CHECK_EQ(ids.size(), 51u);
}

TEST(tags_count_every_end) {
  Rig rig({.max_batch_size = 2, .max_queue_size = 3});
  Batcher& b = *rig.batcher;
  const auto tagged = [&](const char* value) { return SubmitOptions{.tags = b.tag_set(key_of({{"end", value}}))}; };
  rig.model->shut();
  const RequestRef first = rig.row(0);
  rig.model->wait_for_runs(1);
  const RequestRef completed = rig.submit({1, 1, 2, 2}, {2, 2}, tagged("completed"));
  const RequestRef failed = rig.row(FakeRunner::kPoison, tagged("failed"));
  CHECK(b.cancel(*rig.row(1, tagged("cancelled"))));
  SubmitOptions late = tagged("expired");
  late.deadline = 1;
  CHECK(error_of([&] { rig.row(1, late); }).code == ErrorCode::kDeadline);
  CHECK(error_of([&] { rig.submit({1, 2, 3}, {3}, tagged("invalid")); }).code == ErrorCode::kValidation);
  CHECK(error_of([&] { rig.row(__builtin_nanf(""), tagged("invalid")); }).code == ErrorCode::kValidation);
  const RequestRef third = rig.row(1, tagged("completed"));
  CHECK(error_of([&] { rig.row(1, tagged("rejected")); }).code == ErrorCode::kQueueFull);
  rig.model->open();
  CHECK(b.drain());
  CHECK(error_of([&] { rig.row(1, tagged("rejected")); }).code == ErrorCode::kClosed);
  const auto of = [&](const char* value) { return figures_of(b, {{"end", value}}); };
  CHECK_EQ(of("completed").completed, 2u);
  CHECK_EQ(of("completed").rows, 3u);
  CHECK(of("completed").nanos > 0);
  CHECK_EQ(of("failed").failed, 1u);
  CHECK_EQ(of("cancelled").cancelled, 1u);
  CHECK_EQ(of("expired").expired, 1u);
  CHECK_EQ(of("invalid").invalid, 2u);
  CHECK_EQ(of("rejected").rejected, 2u);
  uint64_t all = 0;
  for (const TagFigures& t : b.tags()) {
    all += t.completed + t.failed + t.cancelled + t.expired + t.rejected + t.invalid;
  }
  CHECK_EQ(all, 9u);
  const BatcherStats s = b.stats();
  CHECK_EQ(s.completed + s.failed + s.cancelled + s.expired + s.rejected + s.invalid, all + 1);  // the first has none
}

TEST(tags_of_a_refusal_are_in_its_record) {
  Rig rig({.max_batch_size = 1, .max_queue_size = 1});
  rig.model->shut();
  const RequestRef first = rig.row(0);
  rig.model->wait_for_runs(1);
  TagSet* const set = rig.batcher->tag_set(key_of({{"a", "1"}}));
  const RequestRef second = rig.row(1, {.tags = set});
  CHECK(error_of([&] { rig.row(1, {.tags = set}); }).code == ErrorCode::kQueueFull);
  const std::vector<TraceRecord> records = rig.batcher->ring().read();
  CHECK_EQ(records.size(), 1u);
  CHECK_EQ(records[0].tags, set->id);
  rig.model->open();
  CHECK(rig.batcher->drain());
}

TEST(tags_have_no_set_where_there_are_none) {
  Rig rig;
  CHECK(rig.batcher->tag_set(TagKey()) == nullptr);
  CHECK(rig.batcher->tags().empty());
  CHECK_THROWS(Rig({.max_tag_sets = 0}), std::invalid_argument);
  CHECK_THROWS(Rig({.max_tag_sets = TagTable::kMost + 1}), std::invalid_argument);
}
