// Loops over many small things, such as the nodes of a graph, that can be told to stop.
#pragma once
#include <iterator>
#include <utility>

#include "platform/run_control.h"

namespace inferkit {

/// A range whose loop the calling thread's control may end: see stoppable().
template <class Range>
class Stoppable {
 public:
  using Inner = decltype(std::begin(std::declval<Range&>()));
  using End = decltype(std::end(std::declval<Range&>()));

  class Iterator {
   public:
    explicit Iterator(Inner at) : at_(std::move(at)) {}
    decltype(auto) operator*() const { return *at_; }
    Iterator& operator++() {
      ++at_;
      if (--left_ == 0) {
        left_ = kSteps;
        RunControl::check();
      }
      return *this;
    }
    bool operator!=(const End& end) const { return at_ != end; }

   private:
    Inner at_;
    int left_ = kSteps;
  };

  explicit Stoppable(Range&& range) : range_(std::forward<Range>(range)) {}
  Iterator begin() { return Iterator(std::begin(range_)); }
  End end() { return std::end(range_); }

 private:
  /// At some microseconds a step they take less than a millisecond, and the question costs each step next to nothing.
  static constexpr int kSteps = 128;
  Range range_;  // a reference, where it is another's
};

/// [0, count), for loops that need the index.
template <class Int>
struct Indices {
  struct Iterator {
    Int at;
    Int operator*() const { return at; }
    Iterator& operator++() {
      ++at;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return at != other.at; }
  };
  Iterator begin() const { return {0}; }
  Iterator end() const { return {count}; }
  const Int count;
};

/// `for (Node& node : stoppable(graph.nodes))`: the same loop, which throws Stopped between two of its steps where the
/// work is to stop. What it changes must be of no use to anybody once it is left halfway.
template <class Range>
Stoppable<Range> stoppable(Range&& range) {
  return Stoppable<Range>(std::forward<Range>(range));
}
template <class Int>
Stoppable<Indices<Int>> stoppable_indices(Int count) {
  return Stoppable<Indices<Int>>(Indices<Int>{count});
}

}  // namespace inferkit
