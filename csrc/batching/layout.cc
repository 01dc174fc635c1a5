#include "batching/layout.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "platform/aligned_alloc.h"

namespace inferkit {
namespace {
// Beyond this many shapes, those that no request uses, nor has used for a while, are forgotten.
constexpr size_t kKeptLayouts = 256;
}  // namespace

size_t RowLayout::offset(size_t index, int64_t count) const {
  size_t at = 0;
  for (size_t i = 0; i < index; ++i) at += round_up(row_bytes[i] * static_cast<size_t>(count), kAlignment);
  return at;
}

size_t RowLayout::bytes_per_row() const {
  size_t bytes = 0;
  for (const size_t of : row_bytes) bytes += of;
  return bytes;
}

LayoutTable::LayoutTable(std::span<const PortSpec> inputs) : inputs_(inputs), full_(kKeptLayouts) {
  std::vector<Shape> rows;
  for (const PortSpec& input : inputs) {
    Shape row = input.shape;
    row.erase(0);
    if (!row.is_concrete()) return;
    rows.push_back(row);
  }
  fixed_ = make(rows);
}

LayoutRef LayoutTable::make(std::span<const Shape> rows) const {
  auto layout = std::make_shared<RowLayout>();
  for (size_t i = 0; i < rows.size(); ++i) {
    layout->rows.push_back(rows[i]);
    layout->row_bytes.push_back(static_cast<size_t>(rows[i].elements()) * dtype_size(inputs_[i].dtype));
  }
  return layout;
}

LayoutRef LayoutTable::intern(std::span<const Shape> rows) {
  if (fixed_) return fixed_;
  size_t hash = 0;
  for (const Shape& row : rows) hash = hash * 31 + hash_value(row);
  MutexLock lock(mutex_);
  const auto [first, last] = table_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    Entry& entry = it->second;
    if (!std::equal(rows.begin(), rows.end(), entry.layout->rows.begin(), entry.layout->rows.end())) continue;
    entry.used = true;
    return entry.layout;
  }
  if (table_.size() >= full_) forget_unused();
  return table_.emplace(hash, Entry{make(rows)})->second.layout;
}

/// Each look is as long as the table, which has doubled since the last one: constant time for each new shape. The table
/// is never longer than twice what is in use, and the first few.
void LayoutTable::forget_unused() {
  for (auto it = table_.begin(); it != table_.end();) {
    Entry& entry = it->second;
    const bool unused = !std::exchange(entry.used, false) && entry.layout.use_count() == 1;
    it = unused ? table_.erase(it) : std::next(it);
  }
  full_ = std::max(kKeptLayouts, 2 * table_.size());
}

}  // namespace inferkit
