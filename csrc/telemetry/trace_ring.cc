#include "telemetry/trace_ring.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace inferkit {
namespace {

constexpr size_t kNameWords = TraceRecord::kNameBytes / sizeof(uint64_t);
enum Word : size_t {
  kId,
  kBatch,
  kEnqueued,
  kDequeued,
  kStarted,
  kFinished,
  kDelivered,
  kThreadRows,
  kBatchRowsCodes,
  kName,
  kWords = kName + kNameWords,
};

uint64_t word_of(Nanos value) { return static_cast<uint64_t>(value); }
Nanos nanos_of(uint64_t word) { return static_cast<Nanos>(word); }

}  // namespace

// Words are stored with release and loaded with acquire: none is seen before the version became odd, and the second
// look at the version comes after all of them. On x86 that is plain moves.
struct alignas(64) TraceRing::Slot {
  std::atomic<uint64_t> version{0};
  std::array<std::atomic<uint64_t>, kWords> words{};

  void put(size_t index, uint64_t value) { words[index].store(value, std::memory_order_release); }
  uint64_t get(size_t index) const { return words[index].load(std::memory_order_acquire); }
  /// From `seen`, at rest, to being written for `sequence`.
  bool claim(uint64_t seen, uint64_t sequence) {
    return version.compare_exchange_strong(seen, 2 * sequence + 1, std::memory_order_acq_rel,
                                           std::memory_order_relaxed);
  }
  void publish(uint64_t sequence) { version.store(2 * sequence, std::memory_order_release); }
};

std::string_view TraceRecord::name_view() const { return {name, strnlen(name, kNameBytes)}; }

TraceRing::TraceRing(size_t capacity)
    : mask_(capacity ? std::bit_ceil(capacity) - 1 : 0),
      slots_(capacity ? std::make_unique<Slot[]>(mask_ + 1) : nullptr),
      enabled_(capacity != 0) {
  static_assert(sizeof(Slot) == 128);
}

TraceRing::~TraceRing() = default;

uint64_t TraceRing::add(const TraceEntry& r, std::string_view name) {
  if (!enabled()) return 0;
  const uint64_t sequence = head_.fetch_add(1, std::memory_order_relaxed) + 1;
  Slot& slot = slots_[sequence & mask_];
  const uint64_t seen = slot.version.load(std::memory_order_relaxed);
  if ((seen & 1) || seen > 2 * sequence || !slot.claim(seen, sequence)) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return 0;
  }
  slot.put(kId, r.id);
  slot.put(kBatch, r.batch_id);
  slot.put(kEnqueued, word_of(r.enqueued));
  slot.put(kDequeued, word_of(r.dequeued));
  slot.put(kStarted, word_of(r.started));
  slot.put(kFinished, word_of(r.finished));
  slot.put(kDelivered, word_of(r.delivered));
  slot.put(kThreadRows, uint64_t{r.thread} << 32 | r.rows);
  slot.put(kBatchRowsCodes, uint64_t{r.batch_rows} << 32 | uint64_t{static_cast<uint8_t>(r.priority)} << 24 |
                                (uint64_t{r.tags} & TraceEntry::kMostTags) << 13 | uint64_t{r.kind & 1u} << 12 |
                                uint64_t{r.outcome & 15u} << 8 | r.reason);
  if (name.empty()) {
    slot.put(kName, 0);  // an empty first word says that there is none
  } else {
    std::array<uint64_t, kNameWords> words{};
    std::memcpy(words.data(), name.data(), std::min(name.size(), TraceRecord::kNameBytes));
    for (size_t i = 0; i < kNameWords; ++i) slot.put(kName + i, words[i]);
  }
  slot.publish(sequence);
  // The next record's place has left the nearest cache since it was written: fetch it while nobody waits for it.
  const auto* next = reinterpret_cast<const std::byte*>(&slots_[(sequence + 1) & mask_]);
  __builtin_prefetch(next, 1);
  __builtin_prefetch(next + 64, 1);
  return sequence;
}

void TraceRing::deliver(uint64_t sequence, Nanos at) {
  if (sequence == 0) return;
  Slot& slot = slots_[sequence & mask_];
  if (!slot.claim(2 * sequence, sequence)) return;
  slot.put(kDelivered, word_of(at));
  slot.publish(sequence);
}

std::vector<TraceRecord> TraceRing::read(uint64_t after) const {
  std::vector<TraceRecord> out;
  for (size_t i = 0; i < capacity(); ++i) {
    const Slot& slot = slots_[i];
    const uint64_t version = slot.version.load(std::memory_order_acquire);
    if ((version & 1) || version <= 2 * after) continue;
    TraceRecord r;
    r.sequence = version / 2;
    r.id = slot.get(kId);
    r.batch_id = slot.get(kBatch);
    r.enqueued = nanos_of(slot.get(kEnqueued));
    r.dequeued = nanos_of(slot.get(kDequeued));
    r.started = nanos_of(slot.get(kStarted));
    r.finished = nanos_of(slot.get(kFinished));
    r.delivered = nanos_of(slot.get(kDelivered));
    const uint64_t who = slot.get(kThreadRows), codes = slot.get(kBatchRowsCodes);
    r.thread = static_cast<uint32_t>(who >> 32);
    r.rows = static_cast<uint32_t>(who);
    r.batch_rows = static_cast<uint32_t>(codes >> 32);
    r.priority = static_cast<int8_t>(codes >> 24);
    r.tags = static_cast<uint16_t>(codes >> 13 & TraceEntry::kMostTags);
    r.kind = static_cast<uint8_t>(codes >> 12 & 1);
    r.outcome = static_cast<uint8_t>(codes >> 8 & 15);
    r.reason = static_cast<uint8_t>(codes);
    std::array<uint64_t, kNameWords> words{};
    words[0] = slot.get(kName);
    for (size_t w = 1; words[0] && w < kNameWords; ++w) words[w] = slot.get(kName + w);
    std::memcpy(r.name, words.data(), sizeof words);
    if (slot.version.load(std::memory_order_relaxed) == version) out.push_back(r);
  }
  std::sort(out.begin(), out.end(), [](const TraceRecord& a, const TraceRecord& b) { return a.sequence < b.sequence; });
  return out;
}

}  // namespace inferkit
