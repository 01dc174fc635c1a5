#include <atomic>
#include <string>
#include <thread>

#include "telemetry/trace_ring.h"
#include "test.h"

using namespace inferkit;

namespace {
TraceRecord record_of(uint64_t id) {
  TraceRecord r;
  r.id = id;
  r.batch_id = id * 2;
  r.enqueued = Nanos(id) * 10;
  r.dequeued = Nanos(id) * 10 + 1;
  r.started = Nanos(id) * 10 + 2;
  r.finished = Nanos(id) * 10 + 3;
  r.thread = uint32_t(id) + 7;
  r.rows = uint32_t(id) + 8;
  r.batch_rows = uint32_t(id) + 9;
  r.kind = 1;
  r.outcome = 2;
  r.reason = 3;
  return r;
}

/// Every field is the function of the id that record_of() made it.
bool whole(const TraceRecord& r) {
  const Nanos t = Nanos(r.id) * 10;
  return r.batch_id == r.id * 2 && r.enqueued == t && r.dequeued == t + 1 && r.started == t + 2 &&
         r.finished == t + 3 && (r.delivered == 0 || r.delivered == t + 4) && r.thread == uint32_t(r.id) + 7 &&
         r.rows == uint32_t(r.id) + 8 && r.batch_rows == uint32_t(r.id) + 9 &&
         r.name_view() == (r.id % 2 ? std::to_string(r.id) : "");
}
std::string name_of(uint64_t id) { return id % 2 ? std::to_string(id) : ""; }
}  // namespace

TEST(trace_ring_gives_back_what_it_got) {
  TraceRing ring(4);
  CHECK(ring.read().empty());
  for (uint64_t id = 1; id <= 3; ++id) CHECK_EQ(ring.add(record_of(id), name_of(id)), id);
  const auto records = ring.read();
  CHECK_EQ(records.size(), 3u);
  for (size_t i = 0; i < records.size(); ++i) {
    CHECK_EQ(records[i].sequence, i + 1);
    CHECK_EQ(records[i].id, i + 1);
    CHECK(whole(records[i]));
    CHECK(records[i].kind == 1 && records[i].outcome == 2 && records[i].reason == 3);
  }
  CHECK_EQ(ring.read(2).size(), 1u);
  CHECK_EQ(ring.read(3).size(), 0u);
}

TEST(trace_ring_keeps_what_shares_a_word_apart) {
  TraceRing ring(8);
  for (int bits = 0; bits < 32; ++bits) {
    TraceRecord r = record_of(2);
    r.kind = bits & 1;
    r.outcome = bits & 2 ? 15 : 0;
    r.reason = bits & 4 ? 0xff : 0;
    r.priority = bits & 8 ? -100 : 0;
    r.tags = bits & 16 ? TraceEntry::kMostTags : 0;
    r.batch_rows = bits & 1 ? 0 : ~0u;
    const uint64_t sequence = ring.add(r, "");
    const TraceRecord back = ring.read(sequence - 1).at(0);
    CHECK(back.kind == r.kind && back.outcome == r.outcome && back.reason == r.reason);
    CHECK(back.priority == r.priority && back.tags == r.tags && back.batch_rows == r.batch_rows);
  }
}

TEST(trace_ring_keeps_the_newest) {
  TraceRing ring(5);
  CHECK_EQ(ring.capacity(), 8u);
  for (uint64_t id = 1; id <= 21; ++id) ring.add(record_of(id), name_of(id));
  const auto records = ring.read();
  CHECK_EQ(records.size(), 8u);
  CHECK_EQ(records.front().id, 14u);
  CHECK_EQ(records.back().id, 21u);
  for (const TraceRecord& r : records) CHECK(whole(r));  // a name of an earlier record does not shine through
  CHECK_EQ(ring.added(), 21u);
  CHECK_EQ(ring.dropped(), 0u);
}

TEST(trace_ring_delivery_comes_later_or_too_late) {
  TraceRing ring(2);
  const uint64_t first = ring.add(record_of(1), "");
  ring.deliver(first, 99);
  CHECK_EQ(ring.read()[0].delivered, 99);
  ring.add(record_of(2), "");
  ring.add(record_of(3), "");  // takes the first one's place
  ring.deliver(first, 77);
  for (const TraceRecord& r : ring.read()) CHECK_EQ(r.delivered, 0);
  ring.deliver(0, 5);  // of a record that was dropped
}

TEST(trace_ring_cuts_long_names) {
  TraceRing ring(2);
  const std::string exact(TraceRecord::kNameBytes, 'a');
  ring.add(record_of(2), exact);
  ring.add(record_of(4), exact + "b");
  for (const TraceRecord& r : ring.read()) CHECK_EQ(std::string(r.name_view()), exact);
}

TEST(trace_ring_off) {
  TraceRing none(0);
  none.set_enabled(true);
  CHECK(!none.enabled());
  CHECK_EQ(none.add(record_of(1), ""), 0u);
  CHECK(none.read().empty());
  TraceRing ring(4);
  ring.set_enabled(false);
  CHECK_EQ(ring.add(record_of(1), ""), 0u);
  ring.set_enabled(true);
  CHECK_EQ(ring.add(record_of(1), ""), 1u);
}

// Writers lap each other and a reader all the time in a ring this small; what is read is whole or not there.
TEST(trace_ring_records_are_never_torn) {
  TraceRing ring(8);
  constexpr uint64_t kEach = 20'000;
  constexpr unsigned kWriters = 3;
  std::atomic<unsigned> running{kWriters};
  std::vector<std::thread> writers;
  for (unsigned w = 0; w < kWriters; ++w) {
    writers.emplace_back([&, w] {
      for (uint64_t i = 0; i < kEach; ++i) {
        const uint64_t id = i * kWriters + w + 1;
        const uint64_t sequence = ring.add(record_of(id), name_of(id));
        // Only where it still is ours: another's record would show a delivery that is not its own.
        ring.deliver(sequence, Nanos(id) * 10 + 4);
      }
      running.fetch_sub(1);
    });
  }
  uint64_t seen = 0;
  while (running.load()) {
    uint64_t last = 0;
    for (const TraceRecord& r : ring.read()) {
      CHECK(whole(r));
      CHECK(r.sequence > last);
      last = r.sequence;
      ++seen;
    }
  }
  for (std::thread& writer : writers) writer.join();
  CHECK(ring.added() == kWriters * kEach);
  CHECK(ring.dropped() < kWriters * kEach);
  CHECK(seen > 0 || ring.read().size() > 0);
}
