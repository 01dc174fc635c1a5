// What callers tag their requests with: names with values, counted by set, of which there are only so many.
#pragma once
#include <array>
#include <atomic>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "batching/request.h"
#include "platform/mutex.h"
#include "telemetry/trace_ring.h"

namespace inferkit {

using TagList = std::vector<std::pair<std::string, std::string>>;  // by name

/// The tags of one request, checked and in the order of their names. Allocates nothing: `name` and `value` are views.
class TagKey {
 public:
  static constexpr size_t kMost = 8, kLongestName = 64, kLongestValue = 128;  // bytes

  /// Throws std::invalid_argument where there are too many, or one can be no label of a metric.
  void add(std::string_view name, std::string_view value);
  bool empty() const { return count_ == 0; }

 private:
  friend class TagTable;
  struct Tag {
    std::string_view name, value;
  };
  using Bytes = std::array<char, kMost*(kLongestName + kLongestValue + 2)>;
  /// The same for the same tags, and for no others.
  std::string_view write(Bytes& to) const noexcept;
  TagList list() const;

  std::array<Tag, kMost> tags_;
  size_t count_ = 0;
};

struct TagFigures {
  uint16_t id = 0;  // TraceEntry::tags
  TagList tags;
  uint64_t completed = 0, failed = 0, cancelled = 0, expired = 0, rejected = 0, invalid = 0;
  uint64_t rows = 0;  // of the completed ones
  Nanos nanos = 0;    // that those took in all
};

/// All requests with the same tags. It lives as long as its batcher. Lock-free; counts are relaxed, as they order
/// nothing.
class TagSet {
 public:
  TagSet(uint16_t id_, TagList tags_) : id(id_), tags(std::move(tags_)) {}

  void ended(Phase end) noexcept {
    ends_[size_t(end) - size_t(Phase::kResult)].fetch_add(1, std::memory_order_relaxed);
  }
  void invalid() noexcept { invalid_.fetch_add(1, std::memory_order_relaxed); }
  /// Besides ended(), where there is an answer.
  void answered(int64_t rows, Nanos took) noexcept;
  TagFigures figures() const;

  const uint16_t id;
  const TagList tags;

 private:
  std::array<std::atomic<uint64_t>, kEndCount> ends_{};
  std::atomic<uint64_t> invalid_{0}, rows_{0};
  std::atomic<Nanos> nanos_{0};
};

/// The sets of tags of a batcher. The first ones that come are known for good, since a metric must not forget what it
/// has counted; all others are one set. Thread-safe.
class TagTable {
 public:
  static constexpr size_t kMost = 1000;                                     // that `most` may be
  static constexpr const char *kOthers = "overflow", *kOthersAre = "true";  // the tag of all others

  explicit TagTable(size_t most);

  /// Allocates where the tags come for the first time.
  TagSet& find(const TagKey& key);
  std::vector<TagFigures> figures() const;

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  const size_t most_;
  mutable Mutex mutex_;  // guards what follows; held for a look-up
  std::unordered_map<std::string, TagSet*, Hash, std::equal_to<>> table_ GUARDED_BY(mutex_);
  std::deque<TagSet> sets_ GUARDED_BY(mutex_);  // which stay where they are
  TagSet others_;
  bool has_others_ GUARDED_BY(mutex_) = false;
};
static_assert(TagTable::kMost + 1 <= TraceEntry::kMostTags);

}  // namespace inferkit
