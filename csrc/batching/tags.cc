#include "batching/tags.h"

#include <algorithm>
#include <stdexcept>

#include "base/error.h"
#include "base/text.h"

namespace inferkit {
namespace {

/// Labels that the metrics of tags have themselves.
constexpr std::array<std::string_view, 3> kTaken{"batcher", "outcome", TagTable::kOthers};

/// What Prometheus takes for the name of a label, but for the names that it keeps for itself.
bool is_label(std::string_view name) {
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  return !name.empty() && !is_digit(name[0]) && !name.starts_with("__") &&
         std::ranges::all_of(name, [&](char c) { return is_letter(c) || is_digit(c); });
}

void check_tag(std::string_view name, std::string_view value) {
  if (!is_label(name)) {
    throw std::invalid_argument(cat("tag ", quote(name),
                                    ": its name must be made of letters (a to z), digits and underscores, and begin "
                                    "with neither a digit nor two underscores, as Prometheus has it"));
  }
  if (name.size() > TagKey::kLongestName) {
    throw std::invalid_argument(
        cat("tag ", quote(name), ": its name has at most ", TagKey::kLongestName, " characters, got ", name.size()));
  }
  if (std::ranges::find(kTaken, name) != kTaken.end()) {
    throw std::invalid_argument(cat("tag ", quote(name), ": the metrics have a label of this name: choose another"));
  }
  if (value.empty()) {
    throw std::invalid_argument(
        cat("tag ", quote(name), ": its value must not be empty, which to Prometheus is no label: leave the tag out"));
  }
  if (value.size() > TagKey::kLongestValue) {
    throw std::invalid_argument(cat("tag ", quote(name), ": its value has at most ", TagKey::kLongestValue,
                                    " bytes of UTF-8, got ", value.size()));
  }
}

}  // namespace

void TagKey::add(std::string_view name, std::string_view value) {
  if (count_ == kMost) throw std::invalid_argument(cat("a request has at most ", kMost, " tags, got more"));
  check_tag(name, value);
  size_t at = count_;
  while (at > 0 && name < tags_[at - 1].name) --at;
  // Keys of a dict may be equal as text and not as keys, where their class says so.
  if (at > 0 && tags_[at - 1].name == name) throw std::invalid_argument(cat("tag ", quote(name), " is given twice"));
  std::move_backward(tags_.begin() + at, tags_.begin() + count_, tags_.begin() + count_ + 1);
  tags_[at] = {name, value};
  ++count_;
}

std::string_view TagKey::write(Bytes& to) const noexcept {
  static_assert(kLongestValue < 256);
  char* out = to.data();
  for (size_t i = 0; i < count_; ++i) {
    out = std::ranges::copy(tags_[i].name, out).out;
    *out++ = '=';  // which no name has; a value may hold anything
    *out++ = static_cast<char>(tags_[i].value.size());
    out = std::ranges::copy(tags_[i].value, out).out;
  }
  return {to.data(), static_cast<size_t>(out - to.data())};
}

TagList TagKey::list() const {
  TagList out;
  out.reserve(count_);
  for (size_t i = 0; i < count_; ++i) out.emplace_back(tags_[i].name, tags_[i].value);
  return out;
}

void TagSet::answered(int64_t rows, Nanos took) noexcept {
  rows_.fetch_add(static_cast<uint64_t>(rows), std::memory_order_relaxed);
  nanos_.fetch_add(took, std::memory_order_relaxed);
}

TagFigures TagSet::figures() const {
  const auto get = [](const auto& count) { return count.load(std::memory_order_relaxed); };
  const auto ended = [&](Phase end) { return get(ends_[size_t(end) - size_t(Phase::kResult)]); };
  TagFigures out;
  out.id = id;
  out.tags = tags;
  out.completed = ended(Phase::kResult);
  out.failed = ended(Phase::kError);
  out.cancelled = ended(Phase::kCancelled);
  out.expired = ended(Phase::kExpired);
  out.rejected = ended(Phase::kRejected) + ended(Phase::kClosed);
  out.invalid = get(invalid_);
  out.rows = get(rows_);
  out.nanos = get(nanos_);
  return out;
}

TagTable::TagTable(size_t most) : most_(most), others_(static_cast<uint16_t>(most + 1), {{kOthers, kOthersAre}}) {}

TagSet& TagTable::find(const TagKey& key) {
  TagKey::Bytes buffer;
  const std::string_view bytes = key.write(buffer);
  const MutexLock lock(mutex_);
  if (const auto at = table_.find(bytes); at != table_.end()) return *at->second;
  if (sets_.size() == most_) {
    has_others_ = true;
    return others_;
  }
  const auto at = table_.emplace(std::string(bytes), nullptr).first;
  try {
    at->second = &sets_.emplace_back(static_cast<uint16_t>(sets_.size() + 1), key.list());
  } catch (...) {
    table_.erase(at);
    throw;
  }
  return *at->second;
}

std::vector<TagFigures> TagTable::figures() const {
  std::vector<const TagSet*> sets;
  {
    const MutexLock lock(mutex_);
    sets.reserve(sets_.size() + 1);
    for (const TagSet& set : sets_) sets.push_back(&set);
    if (has_others_) sets.push_back(&others_);
  }
  std::vector<TagFigures> out;
  out.reserve(sets.size());
  for (const TagSet* set : sets) out.push_back(set->figures());  // without the lock, which submitters want
  return out;
}

}  // namespace inferkit
