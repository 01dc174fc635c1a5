#include "batching/line.h"

#include <algorithm>
#include <utility>

#include "batching/request.h"

namespace inferkit {

Request* Line::level_of(int priority) const {
  Request* head = first_;
  while (head && head->priority > priority) head = head->level_next_;
  return head;
}

void Line::push(RequestRef ref) noexcept {
  Request& request = *ref.detach();  // the links own the reference
  Request* const level = level_of(request.priority);
  const bool joins = level && level->priority == request.priority;
  // The list's neighbours of the new one: the level's last, or the last of the level above.
  Request* previous = nullptr;
  if (joins) {
    previous = level->level_last_;
    level->level_last_ = &request;
  } else {
    Request* above = level ? level->level_previous_ : nullptr;
    if (!level && first_) {
      above = first_;
      while (above->level_next_) above = above->level_next_;
    }
    previous = above ? above->level_last_ : nullptr;
    request.level_previous_ = above;
    request.level_next_ = level;
    request.level_last_ = &request;
    if (above) above->level_next_ = &request;
    if (level) level->level_previous_ = &request;
  }
  request.line_ = this;
  request.previous_ = previous;
  request.next_ = previous ? previous->next_ : first_;
  (previous ? previous->next_ : first_) = &request;
  if (request.next_) request.next_->previous_ = &request;
  ++size_;
  rows_ += request.rows;
  earliest_deadline_ = std::min(earliest_deadline_, request.deadline);
}

RequestRef Line::unlink(Request& request) noexcept {
  Request* const next = request.next_;
  Request* const previous = request.previous_;
  const bool next_is_ours = next && next->priority == request.priority;
  if (previous && previous->priority == request.priority) {  // inside its level, or its last
    if (!next_is_ours) level_of(request.priority)->level_last_ = previous;
  } else {
    Request *const above = request.level_previous_, *const below = request.level_next_;
    Request* const head = next_is_ours ? next : nullptr;
    if (head) {
      head->level_last_ = request.level_last_;
      head->level_previous_ = above;
      head->level_next_ = below;
    }
    if (above) above->level_next_ = head ? head : below;
    if (below) below->level_previous_ = head ? head : above;
  }
  (previous ? previous->next_ : first_) = next;
  if (next) next->previous_ = previous;
  request.line_ = nullptr;
  request.next_ = request.previous_ = nullptr;
  request.level_next_ = request.level_previous_ = request.level_last_ = nullptr;
  --size_;
  rows_ -= request.rows;
  if (empty()) {
    earliest_deadline_ = kNever;
    deadline_left_ = false;
  } else if (request.deadline == earliest_deadline_ && request.deadline != kNever) {
    deadline_left_ = true;
  }
  return RequestRef::adopt(&request);
}

RequestRef Line::remove(Request& request) noexcept { return request.line_ == this ? unlink(request) : nullptr; }

Request* Line::next(const Request& request) { return request.next_; }

Nanos Line::oldest() const {
  Nanos oldest = kNever;
  for (const Request* head = first_; head; head = head->level_next_) {
    oldest = std::min(oldest, head->times.enqueued.load(std::memory_order_relaxed));
  }
  return oldest;
}

int64_t Line::rows_from(int priority) const {
  if (!first_ || first_->priority < priority) return 0;
  const Request* last = first_;
  while (last->level_next_ && last->level_next_->priority >= priority) last = last->level_next_;
  if (!last->level_next_) return rows_;
  int64_t rows = 0;
  for (const Request* r = first_; r != last->level_last_->next_; r = r->next_) rows += r->rows;
  return rows;
}

void Line::refresh_deadline() {
  if (!deadline_left_) return;
  deadline_left_ = false;
  earliest_deadline_ = kNever;
  for (const Request* r = first_; r; r = r->next_) earliest_deadline_ = std::min(earliest_deadline_, r->deadline);
}

void Line::release() noexcept {
  while (first_) unlink(*first_);
}

RequestList::~RequestList() {
  while (pop()) {
  }
}

void RequestList::push(RequestRef ref) noexcept {
  Request* request = ref.detach();
  request->next_ = nullptr;
  (last_ ? last_->next_ : first_) = request;
  last_ = request;
}

Request* RequestList::next(const Request& request) { return request.next_; }

RequestRef RequestList::pop() noexcept {
  Request* request = first_;
  if (!request) return nullptr;
  first_ = std::exchange(request->next_, nullptr);
  if (!first_) last_ = nullptr;
  return RequestRef::adopt(request);
}

}  // namespace inferkit
