// Requests in the order in which they go: by priority, then first in first out.
#pragma once
#include <cstddef>

#include "batching/intrusive_ptr.h"
#include "platform/clock.h"

namespace inferkit {

class Request;
using RequestRef = IntrusivePtr<Request>;

/// Links through the requests themselves, so that nothing here can fail: no call allocates. Owns a reference to each
/// request in it. Not thread-safe: its owner's lock guards it and the links. Where a level (the requests of one
/// priority) begins, its first request knows its neighbours and its last one, so that an arrival passes levels, not
/// requests.
class Line {
 public:
  Line() = default;
  ~Line() { release(); }
  Line(const Line&) = delete;
  Line& operator=(const Line&) = delete;

  /// At the end of its level. It must be in no line.
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
  /// Rows of requests of at least this priority.
  int64_t rows_from(int priority) const;
  /// Not later than the earliest deadline; kNever where there is none.
  Nanos earliest_deadline() const { return earliest_deadline_; }
  /// Makes that exact again, in linear time, where the one that had it may have left.
  void refresh_deadline();

 private:
  Request* level_of(int priority) const;  // its first request, or that of the next lower one, or null
  void release() noexcept;

  Request* first_ = nullptr;
  size_t size_ = 0;
  int64_t rows_ = 0;
  Nanos earliest_deadline_ = kNever;
  bool deadline_left_ = false;  // whoever had the earliest deadline is gone
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

 private:
  Request* first_ = nullptr;
  Request* last_ = nullptr;
};

}  // namespace inferkit
