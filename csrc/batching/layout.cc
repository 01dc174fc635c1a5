#include "batching/layout.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "platform/aligned_alloc.h"

namespace inferkit {
namespace {
// Beyond this many shapes, those that no request uses, nor has used for a while, are forgotten.
constexpr size_t kKeptLayouts = 256;

/// Of their lengths and bytes.
std::vector<std::string_view> strings_in(std::span<const std::byte> key) {
  std::vector<std::string_view> out;
  while (!key.empty()) {
    size_t length = 0;
    std::memcpy(&length, key.data(), sizeof length);
    key = key.subspan(sizeof length);
    out.emplace_back(reinterpret_cast<const char*>(key.data()), length);
    key = key.subspan(length);
  }
  return out;
}
}  // namespace

int64_t fixed_rows_of(std::span<const PortSpec> inputs) {
  int64_t fixed = 0;
  for (const PortSpec& input : inputs) {
    if (is_shared(input) || input.shape[0] == Shape::kFree) continue;
    const int64_t first = input.shape[0];
    if (first < 1 || (fixed && fixed != first)) {
      throw std::invalid_argument(cat("input ", quote(input.name), " has a first dimension of ", first,
                                      " where a Batcher needs the batch: call the model directly"));
    }
    fixed = first;
  }
  return fixed;
}

Shape RowLayout::shape(size_t index, int64_t count, int64_t own) const {
  Shape shape = rows[index];
  if (own && own != length && padding->pads(index)) shape[padding->input(index).axis - 1] = own;
  if (!is_shared(index)) shape.insert(0, count);
  return shape;
}

size_t RowLayout::bytes(size_t index, int64_t count, int64_t own) const {
  if (is_shared(index)) return value(index).size();
  size_t row = row_bytes[index];
  if (own && own != length && padding->pads(index)) row = row / static_cast<size_t>(length) * static_cast<size_t>(own);
  return row * static_cast<size_t>(count);
}

size_t RowLayout::offset(size_t index, int64_t count, int64_t own) const {
  size_t at = 0;
  for (size_t i = 0; i < index; ++i) at += round_up(bytes(i, count, own), kAlignment);
  return at;
}

size_t RowLayout::bytes_per_row() const {
  size_t bytes = 0;
  for (const size_t of : row_bytes) bytes += of;
  return bytes;
}

uint64_t RowLayout::padded_elements(int64_t count, int64_t own) const {
  if (!padding || length == 0) return 0;
  int64_t elements = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (padding->pads(i)) elements += count * (rows[i].elements() / length * own);
  }
  return static_cast<uint64_t>(elements);
}

int64_t RowLayout::largest_row() const {
  int64_t most = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (!is_shared(i)) most = std::max(most, rows[i].elements());
  }
  return most;
}

LayoutTable::LayoutTable(std::span<const PortSpec> inputs, std::shared_ptr<const Padding> padding, int64_t max_elements)
    : inputs_(inputs),
      padding_(std::move(padding)),
      max_elements_(max_elements),
      fixed_rows_(fixed_rows_of(inputs)),
      full_(kKeptLayouts) {
  std::vector<Shape> rows;
  for (const PortSpec& input : inputs) {
    if (is_shared(input)) return;
    Shape row = input.shape;
    row.erase(0);
    if (!row.is_concrete()) return;
    rows.push_back(row);
  }
  fixed_ = make(rows, {});
}

LayoutRef LayoutTable::make(std::span<const Shape> rows, std::vector<std::vector<std::byte>> shared) const {
  auto layout = std::make_shared<RowLayout>();
  layout->fixed_rows = fixed_rows_;
  layout->shared = std::move(shared);
  for (size_t i = 0; i < layout->shared.size(); ++i) {
    if (inputs_[i].dtype != DType::kString || layout->shared[i].empty()) continue;
    layout->strings.resize(layout->shared.size());
    layout->strings[i] = strings_in(layout->shared[i]);
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    layout->rows.push_back(rows[i]);
    const size_t bytes = static_cast<size_t>(rows[i].elements()) * dtype_size(inputs_[i].dtype);
    layout->row_bytes.push_back(layout->is_shared(i) ? 0 : bytes);
    layout->text |= inputs_[i].dtype == DType::kString;
  }
  const int64_t largest = layout->largest_row();
  if (max_elements_ && largest) layout->most_rows = max_elements_ / largest;
  // Rows that are padded may be much more than came: their bytes are a number, whatever becomes of it.
  const size_t bytes = std::max<size_t>(1, layout->bytes_per_row());
  layout->most_rows = std::min(layout->most_rows, static_cast<int64_t>((size_t{1} << 62) / bytes));
  if (padding_) {
    layout->padding = padding_;
    layout->length = rows[padding_->first()][padding_->input(padding_->first()).axis - 1];
  }
  return layout;
}

LayoutRef LayoutTable::intern(std::span<const Shape> rows, std::vector<std::vector<std::byte>> shared) {
  if (fixed_) return fixed_;
  size_t hash = 0;
  for (const Shape& row : rows) hash = hash * 31 + hash_value(row);
  for (const auto& value : shared) {
    const std::string_view bytes(reinterpret_cast<const char*>(value.data()), value.size());
    hash = hash * 31 + std::hash<std::string_view>()(bytes);
  }
  MutexLock lock(mutex_);
  const auto [first, last] = table_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    Entry& entry = it->second;
    if (!std::equal(rows.begin(), rows.end(), entry.layout->rows.begin(), entry.layout->rows.end())) continue;
    if (entry.layout->shared != shared) continue;
    entry.used = true;
    return entry.layout;
  }
  if (table_.size() >= full_) forget_unused();
  return table_.emplace(hash, Entry{make(rows, std::move(shared))})->second.layout;
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
