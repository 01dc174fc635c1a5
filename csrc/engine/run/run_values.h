// The values that a run in stages knows so far, by their ids. A graph may have thousands of ids, and a body of a loop
// runs thousands of times: those that a run never has cost it four bytes each.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "base/error.h"
#include "graph/ir.h"

namespace inferkit {

class RunValues {
 public:
  bool has(ValueId id) const { return place_of(id) != kNone; }
  /// What was put there; until the next put.
  const Tensor& operator[](ValueId id) const {
    const uint32_t place = place_of(id);
    if (place == kNone) throw Error(ErrorCode::kModel, "a value that the run needs was not computed");
    return entries_[place].tensor;
  }
  /// The caller's memory, which others may write.
  bool is_foreign(ValueId id) const { return has(id) && entries_[place_of(id)].foreign; }

  void put(ValueId id, Tensor tensor, bool foreign = false) {
    const auto at = static_cast<size_t>(id);
    if (places_.size() <= at) places_.resize(at + 1, kNone);
    if (places_[at] == kNone) {
      places_[at] = static_cast<uint32_t>(entries_.size());
      entries_.push_back({std::move(tensor), foreign});
    } else {
      entries_[places_[at]] = {std::move(tensor), foreign};
    }
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Entry {
    Tensor tensor;
    bool foreign;
  };
  uint32_t place_of(ValueId id) const {
    const auto at = static_cast<size_t>(id);
    return at < places_.size() ? places_[at] : kNone;
  }

  std::vector<uint32_t> places_;  // in entries_
  std::vector<Entry> entries_;
};

}  // namespace inferkit
