// What requests must have in common to share a batch: the shape of one row of every input, and the value of each input
// that has no rows.
#pragma once
#include <cstddef>
#include <limits>
#include <memory>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/shape.h"
#include "batching/bucket.h"
#include "batching/cost_curve.h"
#include "batching/pace.h"
#include "batching/padding.h"
#include "engine/runner.h"
#include "platform/mutex.h"

namespace inferkit {

/// An input without a batch axis, such as a sampling rate or a table: all rows of a run share its value.
inline bool is_shared(const PortSpec& input) { return input.shape.empty() || input.shared; }

/// The number of rows that the model's inputs are fixed at; 0 where it is free. Throws std::invalid_argument where
/// their first dimensions can be no batch.
int64_t fixed_rows_of(std::span<const PortSpec> inputs);

/// Immutable, but for what is marked so. Two requests share a batch where they point to the same one.
struct RowLayout {
  RowLayout() = default;
  RowLayout(std::vector<Shape> rows_, std::vector<size_t> row_bytes_)
      : rows(std::move(rows_)), row_bytes(std::move(row_bytes_)) {}

  std::vector<Shape> rows;        // of each input, without the batch axis
  std::vector<size_t> row_bytes;  // of each input; 0 for those that are shared
  /// What tells the value of each input that is shared from others; empty where none is. Of numbers that is the value,
  /// of strings their lengths and bytes, which `strings` shows.
  std::vector<std::vector<std::byte>> shared{};
  std::vector<std::vector<std::string_view>> strings{};
  int64_t fixed_rows = 0;                    // as fixed_rows_of() gives it
  std::shared_ptr<const Padding> padding{};  // null where no requests are padded
  int64_t length = 0;                        // where some are: what they are padded to
  bool text = false;  // some input is of strings: their bytes follow all inputs in a request's buffer
  int64_t most_rows = std::numeric_limits<int64_t>::max();  // of a batch, by the elements that it may have

  bool is_shared(size_t index) const { return !shared.empty() && !shared[index].empty(); }
  /// The value of an input that is shared, as it lies in a buffer. Views of strings live as long as this.
  std::span<const std::byte> value(size_t index) const {
    return strings.empty() || strings[index].empty() ? std::span(shared[index])
                                                     : std::as_bytes(std::span(strings[index]));
  }
  /// Of input `index` in a run of `count` rows, or in a request that is not padded yet and has `own` places where its
  /// padded rows have `length`; 0 stands for those.
  Shape shape(size_t index, int64_t count, int64_t own = 0) const;
  size_t bytes(size_t index, int64_t count, int64_t own = 0) const;
  /// The rows of a run of a batch of `count`.
  int64_t run_rows(int64_t count) const { return fixed_rows ? fixed_rows : count; }
  /// Where input `index` of a request of `count` rows starts in the request's buffer; index == rows.size() gives the
  /// size of the buffer, but for the bytes of strings. Every input is 64-byte aligned.
  size_t offset(size_t index, int64_t count, int64_t own = 0) const;

  size_t bytes_per_row() const;
  /// Of the inputs that are padded, in `count` rows of that length; 0 where none are.
  uint64_t padded_elements(int64_t count, int64_t own) const;
  /// A row's, of the input that has the most.
  int64_t largest_row() const;

  mutable Bucket bucket;   // of the requests of this layout that wait; guarded by their queue's lock
  mutable CostCurve cost;  // of runs of this layout
  mutable Pace pace;       // how they are batched; guarded as the bucket is
};
using LayoutRef = std::shared_ptr<const RowLayout>;

/// Gives equal shapes, and equal values of what is shared, the same RowLayout. Thread-safe; a model without either
/// takes no lock.
class LayoutTable {
 public:
  /// A batch is to have no more than `max_elements` of any input; 0: any number.
  explicit LayoutTable(std::span<const PortSpec> inputs, std::shared_ptr<const Padding> padding = nullptr,
                       int64_t max_elements = 0);

  /// The layout where every row shape is fixed by the model, else null.
  const LayoutRef& fixed() const { return fixed_; }
  /// `shared` has the value of each shared input, and is empty where there are none.
  LayoutRef intern(std::span<const Shape> rows, std::vector<std::vector<std::byte>> shared = {});
  /// Under the table's lock.
  template <class Visit>
  void for_each(Visit&& visit) {
    if (fixed_) visit(*fixed_);
    MutexLock lock(mutex_);
    for (const auto& [hash, entry] : table_) visit(*entry.layout);
  }

 private:
  LayoutRef make(std::span<const Shape> rows, std::vector<std::vector<std::byte>> shared) const;

  const std::span<const PortSpec> inputs_;
  const std::shared_ptr<const Padding> padding_;
  const int64_t max_elements_;
  const int64_t fixed_rows_;
  LayoutRef fixed_;
  struct Entry {
    LayoutRef layout;
    bool used = true;  // since the last look for those to forget
  };
  void forget_unused() REQUIRES(mutex_);

  Mutex mutex_;  // guards table_; held for a look-up
  std::unordered_multimap<size_t, Entry> table_ GUARDED_BY(mutex_);
  size_t full_ GUARDED_BY(mutex_);  // entries that make a look for those to forget worth it
};

}  // namespace inferkit
