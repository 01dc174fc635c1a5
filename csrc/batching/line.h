// Requests in the order in which they go: by their turns, of equal ones the first in first.
#pragma once
#include <cstddef>
#include <cstdint>

#include "batching/intrusive_ptr.h"
#include "platform/clock.h"

namespace inferkit {

class Request;
using RequestRef = IntrusivePtr<Request>;

/// What a part of a line adds up to.
struct LineSums {
  int64_t rows = 0;
  Nanos oldest = kNever;    // the earliest time of arrival
  Nanos deadline = kNever;  // the earliest one
  // The least time that is left to one of them, if all of them run one after the other from time 0 on: its deadline
  // less what its rows and those before it take. kNever where none has a deadline.
  Nanos slack = kNever;
};

/// Links through the requests themselves, so that nothing here can fail: no call allocates. Owns a reference to each
/// request in it. Not thread-safe: its owner's lock guards it and the links, and Request::turn, which stays what it is
/// while the request is in here.
///
/// A list. As long as each that comes goes last, its deadline is no earlier than the others', and there are not very
/// many, that is all, and everything takes constant time. With the first that is different an index grows over it,
/// until the line is empty: a treap, a search tree that numbers drawn at random keep flat, of which each node knows the
/// sums of what is below. Then everything takes the logarithm of the length, in the mean, whatever comes.
class Line {
 public:
  Line() = default;
  ~Line() { release(); }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  /// Behind all whose turn is not later. It must be in no line.
  void push(RequestRef ref) noexcept;
  /// Takes it out, from wherever it stands in this line.
  RequestRef unlink(Request& request) noexcept;
  /// Null where it is not in this line.
  RequestRef remove(Request& request) noexcept;

  /// Who goes first, or null.
  Request* first() const { return first_; }
  static Request* next(const Request& request);

  bool empty() const { return !first_; }
  size_t size() const { return size_; }
  int64_t rows() const { return rows_; }
  /// The earliest time of arrival; kNever where it is empty.
  Nanos oldest() const;
  /// Of all in it; kNever where there is none.
  Nanos earliest_deadline() const;
  /// Rows of requests that go before one whose turn was `turn` and that came now.
  int64_t rows_before(Nanos turn) const;
  /// The first whose deadline is not after `now`, or null.
  Request* first_due(Nanos now) const;
  /// LineSums::slack of the requests of this priority that go after one whose turn was `turn` and that came now; kNever
  /// where they are of several priorities, as then it is the lower ones that wait. A row takes `row_nanos`.
  Nanos slack_after(Nanos turn, int priority, Nanos row_nanos) const;
  /// Whether somebody has overtaken others since it was last empty.
  bool has_overtakers() const { return overtaken_; }

 private:
  void link(Request& request, Request* previous) noexcept;
  void grow() const noexcept;
  void insert(Request& request, Request* parent, bool left) const noexcept;
  void lift(Request& request) const noexcept;
  void replace(const Request& request, Request* by) const noexcept;
  void add_up(Request& request) const noexcept;
  void add_up_all() const noexcept;
  Nanos after(Nanos slack, int64_t rows) const { return slack == kNever ? kNever : slack - rows * row_nanos_; }
  void release() noexcept;

  Request* first_ = nullptr;
  Request* last_ = nullptr;
  size_t size_ = 0;
  int64_t rows_ = 0;
  // The index over the list: null where there is none.
  mutable Request* root_ = nullptr;
  mutable uint32_t drawn_ = 0;
  mutable Nanos row_nanos_ = 0;  // by which it adds up slack
  int priority_ = 0;             // of all in it
  bool mixed_ = false;           // since it was last empty, they have been of several
  bool overtaken_ = false;       // since then, one has gone before others
};

/// Requests that have left a queue, on their way to whoever ends them or lets go of them outside the lock. Uses the
/// queue's links, so it never allocates.
class RequestList {
 public:
  RequestList() = default;
  ~RequestList();
  RequestList(const RequestList&) = delete;
  RequestList& operator=(const RequestList&) = delete;

  void push(RequestRef ref) noexcept;
  /// The first in, or null.
  RequestRef pop() noexcept;
  Request* first() const { return first_; }
  static Request* next(const Request& request);
  bool empty() const { return !first_; }
  void swap(RequestList& other) noexcept {
    std::swap(first_, other.first_);
    std::swap(last_, other.last_);
  }

 private:
  Request* first_ = nullptr;
  Request* last_ = nullptr;
};

}  // namespace inferkit
