#include "batching/line.h"

#include <algorithm>
#include <utility>

#include "batching/request.h"

namespace inferkit {
namespace {

/// A Weyl sequence, mixed: as good as drawn at random, and the same in every run.
uint32_t mixed(uint32_t n) {
  n = (n ^ (n >> 16)) * 0x85ebca6bu;
  n = (n ^ (n >> 13)) * 0xc2b2ae35u;
  return n ^ (n >> 16);
}

Nanos arrival(const Request& request) { return request.times.enqueued.load(std::memory_order_relaxed); }

/// More than that are not put into an index at once: each would keep the lock for some 20 ns.
constexpr size_t kListed = 1024;

/// Whether nothing but its place has to be known of a request that joins behind `last`.
bool follows(const Request& request, const Request& last) {
  return request.turn >= last.turn && request.deadline >= last.deadline && arrival(request) >= arrival(last);
}

}  // namespace

// The index

/// The sums of a request, from its own figures and its children's.
void Line::add_up(Request& r) const noexcept {
  LineSums sums{r.rows, arrival(r), r.deadline};
  const int64_t before = r.rows + (r.left_ ? r.left_->sums_.rows : 0);
  sums.slack = after(r.deadline, before);
  if (r.left_) sums.slack = std::min(sums.slack, r.left_->sums_.slack);
  if (r.right_) sums.slack = std::min(sums.slack, after(r.right_->sums_.slack, before));
  for (const Request* child : {r.left_, r.right_}) {
    if (!child) continue;
    sums.rows += child->sums_.rows;
    sums.oldest = std::min(sums.oldest, child->sums_.oldest);
    sums.deadline = std::min(sums.deadline, child->sums_.deadline);
  }
  r.sums_ = sums;
}

/// Children before their parents, without a stack: from the leftmost leaf on, up, and down to the right.
void Line::add_up_all() const noexcept {
  const auto down = [](Request* at) {
    while (at->left_ || at->right_) at = at->left_ ? at->left_ : at->right_;
    return at;
  };
  for (Request* at = root_ ? down(root_) : nullptr; at;) {
    add_up(*at);
    Request* const parent = at->parent_;
    at = parent && parent->left_ == at && parent->right_ ? down(parent->right_) : parent;
  }
}

/// Puts `by`, which may be null, where the request hangs in the tree.
void Line::replace(const Request& r, Request* by) const noexcept {
  Request* const parent = r.parent_;
  (!parent ? root_ : parent->left_ == &r ? parent->left_ : parent->right_) = by;
  if (by) by->parent_ = parent;
}

/// Turns the tree so that the request and its parent change places; adds up neither.
void Line::lift(Request& r) const noexcept {
  Request& parent = *r.parent_;
  const bool was_left = parent.left_ == &r;
  replace(parent, &r);
  Request*& inner = was_left ? r.right_ : r.left_;  // goes from the one to the other
  (was_left ? parent.left_ : parent.right_) = inner;
  if (inner) inner->parent_ = &parent;
  inner = &parent;
  parent.parent_ = &r;
}

/// Hangs a request below `parent`, on a side that is free.
void Line::insert(Request& r, Request* parent, bool left) const noexcept {
  r.parent_ = parent;
  r.left_ = r.right_ = nullptr;
  r.draw_ = mixed(drawn_ += 0x9e3779b9u);
  (!parent ? root_ : left ? parent->left_ : parent->right_) = &r;
  while (r.parent_ && r.parent_->draw_ < r.draw_) {
    Request& below = *r.parent_;
    lift(r);
    add_up(below);
  }
  for (Request* at = &r; at; at = at->parent_) add_up(*at);
}

/// Over all that are there, each of which once paid for its place in it.
void Line::grow() const noexcept {
  for (Request *r = first_, *before = nullptr; r; before = r, r = r->next_) insert(*r, before, false);
}

// The list

void Line::link(Request& r, Request* previous) noexcept {
  r.line_ = this;
  r.previous_ = previous;
  r.next_ = previous ? previous->next_ : first_;
  (previous ? previous->next_ : first_) = &r;
  (r.next_ ? r.next_->previous_ : last_) = &r;
  ++size_;
  rows_ += r.rows;
}

void Line::push(RequestRef ref) noexcept {
  Request& r = *ref.detach();  // the links own the reference
  if (!last_) {
    priority_ = r.priority;
    mixed_ = overtaken_ = false;
  }
  mixed_ |= r.priority != priority_;
  if (!root_ && (!last_ || (size_ < kListed && follows(r, *last_)))) return link(r, last_);
  if (!root_) grow();
  Request *parent = last_, *previous = last_;
  bool left = false;
  if (r.turn < last_->turn) {
    overtaken_ = true;
    previous = nullptr;
    for (Request* at = root_; at; at = left ? at->left_ : at->right_) {
      parent = at;
      left = r.turn < at->turn;
      if (!left) previous = at;
    }
  }
  link(r, previous);
  insert(r, parent, left);
}

RequestRef Line::unlink(Request& r) noexcept {
  if (root_) {
    while (r.left_ && r.right_) lift(r.left_->draw_ > r.right_->draw_ ? *r.left_ : *r.right_);
    replace(r, r.left_ ? r.left_ : r.right_);
    for (Request* above = r.parent_; above; above = above->parent_) add_up(*above);
    r.parent_ = r.left_ = r.right_ = nullptr;
  }
  (r.previous_ ? r.previous_->next_ : first_) = r.next_;
  (r.next_ ? r.next_->previous_ : last_) = r.previous_;
  r.line_ = nullptr;
  r.next_ = r.previous_ = nullptr;
  --size_;
  rows_ -= r.rows;
  return RequestRef::adopt(&r);
}

RequestRef Line::remove(Request& request) noexcept { return request.line_ == this ? unlink(request) : nullptr; }

Nanos Line::oldest() const { return root_ ? root_->sums_.oldest : first_ ? arrival(*first_) : kNever; }

Nanos Line::earliest_deadline() const { return root_ ? root_->sums_.deadline : first_ ? first_->deadline : kNever; }

Request* Line::next(const Request& request) { return request.next_; }

int64_t Line::rows_before(Nanos turn) const {
  if (!last_ || turn >= last_->turn) return rows_;
  if (turn < first_->turn) return 0;
  if (!root_) grow();
  int64_t rows = 0;
  for (const Request* at = root_; at;) {
    if (turn < at->turn) {
      at = at->left_;
    } else {
      rows += at->rows + (at->left_ ? at->left_->sums_.rows : 0);
      at = at->right_;
    }
  }
  return rows;
}

Nanos Line::slack_after(Nanos turn, int priority, Nanos row_nanos) const {
  if (!last_ || turn >= last_->turn || mixed_ || priority != priority_) return kNever;
  if (!root_) grow();
  if (row_nanos < row_nanos_ - row_nanos_ / 4 || row_nanos > row_nanos_ + row_nanos_ / 4) {
    row_nanos_ = row_nanos;  // seldom: what a row takes is a median
    add_up_all();
  }
  Nanos slack = kNever;
  int64_t before = 0;
  for (const Request* at = root_; at;) {
    const int64_t here = before + at->rows + (at->left_ ? at->left_->sums_.rows : 0);
    if (turn < at->turn) {
      slack = std::min(slack, after(at->deadline, here));
      if (at->right_) slack = std::min(slack, after(at->right_->sums_.slack, here));
      at = at->left_;
    } else {
      before = here;
      at = at->right_;
    }
  }
  return slack;
}

Request* Line::first_due(Nanos now) const {
  const auto has_due = [now](const Request* at) { return at && at->sums_.deadline <= now; };
  if (!root_) return first_ && first_->deadline <= now ? first_ : nullptr;
  if (!has_due(root_)) return nullptr;
  Request* at = root_;
  for (;;) {
    if (has_due(at->left_)) {
      at = at->left_;
    } else if (at->deadline <= now) {
      return at;
    } else {
      at = at->right_;
    }
  }
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
