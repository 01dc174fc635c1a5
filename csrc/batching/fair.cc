#include "batching/fair.h"

#include <algorithm>
#include <cmath>

#include "batching/bucket.h"
#include "batching/client.h"
#include "batching/request.h"

namespace inferkit {
namespace {

bool has_earlier_turn(const Request& a, const Request& b) {
  return a.turn != b.turn ? a.turn < b.turn : a.order < b.order;
}

}  // namespace

bool MemberGoesFirst::operator()(const Membership& a, const Membership& b) const {
  return has_earlier_turn(a.request, b.request);
}

Request* Strand::first() const { return members.top() ? &members.top()->request : nullptr; }

Membership::Membership(Request& request_, ClientRef client_, StrandRef strand_)
    : request(request_), client(std::move(client_)), strand(std::move(strand_)) {}

Membership::~Membership() { leave(); }

void Membership::hold() noexcept {
  if (!std::exchange(holds_, true)) client->hold();
}

void Membership::leave() noexcept {
  if (std::exchange(holds_, false)) client->leave();
}

// The accounts

void FairShare::join(Membership& member, Bucket& bucket) noexcept {
  Strand& strand = *member.strand;
  Flow& flow = strand.flow;
  if (!flow.strands) {
    Level& at = level(flow.priority);
    flow.tag = std::max(flow.tag, at.start);
    ++at.flows;
    flow.next = flows_;
    if (flows_) flows_->previous = &flow;
    flows_ = &flow;
  }
  if (strand.empty()) {
    strand.bucket = &bucket;
    strand.next = bucket.strands;
    if (strand.next) strand.next->previous = &strand;
    bucket.strands = &strand;
    strand.next_of_flow = flow.strands;
    if (strand.next_of_flow) strand.next_of_flow->previous_of_flow = &strand;
    flow.strands = &strand;
  }
  strand.members.push(member);
  ++bucket.members;
  const int64_t rows = member.request.rows;
  strand.rows += rows;
  flow.rows += rows;
  rows_ += rows;
}

void FairShare::leave(Membership& member) noexcept {
  Strand& strand = *member.strand;
  Flow& flow = strand.flow;
  Bucket& bucket = *strand.bucket;
  strand.members.remove(member);
  --bucket.members;
  const int64_t rows = member.request.rows;
  strand.rows -= rows;
  flow.rows -= rows;
  rows_ -= rows;
  if (!strand.empty()) return;
  (strand.previous ? strand.previous->next : bucket.strands) = strand.next;
  if (strand.next) strand.next->previous = strand.previous;
  (strand.previous_of_flow ? strand.previous_of_flow->next_of_flow : flow.strands) = strand.next_of_flow;
  if (strand.next_of_flow) strand.next_of_flow->previous_of_flow = strand.previous_of_flow;
  strand.next = strand.previous = strand.next_of_flow = strand.previous_of_flow = nullptr;
  strand.bucket = nullptr;
  if (flow.strands) return;
  (flow.previous ? flow.previous->next : flows_) = flow.next;
  if (flow.next) flow.next->previous = flow.previous;
  flow.next = flow.previous = nullptr;
  Level& at = level(flow.priority);
  if (--at.flows == 0) at.start = at.finish;  // all are even when nobody waits
}

void FairShare::serve(const Membership& member) noexcept {
  Flow& flow = member.strand->flow;
  Level& at = level(flow.priority);
  at.start = std::max(at.start, flow.tag);
  flow.tag += double(member.request.rows) / flow.weight;
  at.finish = std::max(at.finish, flow.tag);
}

Bucket* FairShare::fairest(int priority) const {
  const Flow* best = nullptr;
  const Request* first = nullptr;
  for (const Flow* flow = flows_; flow; flow = flow->next) {
    if (flow->priority != priority || (best && flow->tag > best->tag)) continue;
    const Request* head = nullptr;
    for (const Strand* strand = flow->strands; strand; strand = strand->next_of_flow) {
      if (strand->bucket->filed != Bucket::Filed::kReady) continue;
      if (!head || has_earlier_turn(*strand->first(), *head)) head = strand->first();
    }
    if (!head || (best && flow->tag == best->tag && has_earlier_turn(*first, *head))) continue;
    best = flow;
    first = head;
  }
  return first ? first->member->strand->bucket : nullptr;
}

double FairShare::rows_before(const Flow& flow, Nanos turn) const {
  double own = 0;
  for (const Strand* strand = flow.strands; strand; strand = strand->next_of_flow) {
    if (strand->first()->turn <= turn) own += double(strand->rows);
  }
  const double start = std::max(level(flow.priority).start, flow.tag) + own / flow.weight;
  double before = own;
  for (const Flow* other = flows_; other; other = other->next) {
    if (other == &flow || other->priority < flow.priority) continue;
    if (other->priority > flow.priority) {
      before += double(other->rows);
    } else if (other->tag <= start) {
      before += std::min(double(other->rows), std::floor((start - other->tag) * other->weight) + 1);
    }
  }
  return before;
}

// The order of a batch

bool FairOrder::GoesFirst::operator()(const Strand& a, const Strand& b) const {
  return a.flow.tag != b.flow.tag ? a.flow.tag < b.flow.tag : has_earlier_turn(*a.first(), *b.first());
}

Request* FairOrder::next() noexcept {
  if (current_ && !current_->empty()) heap_.push(*current_);
  current_ = nullptr;
  Request* first = bucket_.first();
  // Some came before there were clients, and have no account: until they have gone, all go by their turns.
  if (!first || bucket_.members != bucket_.size()) return first;
  if (level_ != first->priority) {
    clear();
    level_ = first->priority;
    for (Strand* strand = bucket_.strands; strand; strand = strand->next) {
      if (strand->flow.priority == level_) heap_.push(*strand);
    }
  }
  current_ = heap_.top();
  heap_.remove(*current_);
  return current_->first();
}

void FairOrder::clear() noexcept {
  while (Strand* strand = heap_.top()) heap_.remove(*strand);
}

}  // namespace inferkit
