#include "batching/coalescer.h"

#include <new>
#include <utility>

#include "batching/request.h"
#include "batching/turn.h"

namespace inferkit {
namespace {

/// Its end is decided.
bool is_claimed(const Request& request) { return request.phase() >= Phase::kEnding; }

const Client* client_of(const Request& request) { return request.member ? request.member->client.get() : nullptr; }

constexpr size_t kFewEnded = 16;  // are not worth a walk along the list

}  // namespace

Content Coalescer::content(const Request& request, const Buffer& inputs) const noexcept {
  return {ports_, *request.layout, request.rows, request.length, inputs};
}

Nanos Coalescer::turn(const Request& of) const noexcept {
  return turn_of(of.times.enqueued.load(std::memory_order_relaxed), of.deadline, of.priority, ageing_);
}

bool Coalescer::may_join(const Request& request, const Request& leader) const noexcept {
  const Phase phase = leader.phase();
  if (phase >= Phase::kEnding || leader.by_content->generation != request.by_content->generation) return false;
  if (phase == Phase::kRunning) return true;  // a run of its own would be over later
  return client_of(leader) == client_of(request) && leader.deadline <= request.deadline &&
         turn(leader) <= turn(request);
}

/// Of two that follow one leader: the queue is to know the earliest deadline among them.
bool Coalescer::goes_before(const Request& one, const Request& other) const noexcept {
  return one.deadline != other.deadline ? one.deadline < other.deadline : turn(one) < turn(other);
}

bool Coalescer::join_locked(const RequestRef& request, const Buffer& inputs) noexcept {
  if (most_ && followers_ >= most_) return false;
  const auto [first, last] = leaders_.equal_range(request->by_content->hash);
  for (auto it = first; it != last; ++it) {
    Request& leader = *it->second;
    if (!may_join(*request, leader) || !same_content(content(*request, inputs), content(leader, leader.inputs)))
      continue;
    IntrusivePtr<Followers>& followers = leader.by_content->followers;
    if (!followers) followers = IntrusivePtr<Followers>(new (std::nothrow) Followers);
    if (!followers || !request->advance(Phase::kWaiting, Phase::kQueued)) return false;
    request->by_content->followers = followers;
    followers->waiting.push(request);
    ++followers->count;
    ++followers_;
    return true;
  }
  return false;
}

bool Coalescer::join(const RequestRef& request, const Buffer& inputs) noexcept {
  const MutexLock lock(mutex_);
  return join_locked(request, inputs);
}

bool Coalescer::join_or_lead(const RequestRef& request) noexcept {
  Buffer unused;  // goes back to its pool without the lock
  const MutexLock lock(mutex_);
  unused = std::move(request->inputs);  // a follower has none from the moment that others see it
  if (join_locked(request, unused)) return true;
  request->inputs = std::move(unused);
  try {
    leaders_.emplace(request->by_content->hash, request);
    request->by_content->leads = true;
  } catch (...) {  // no memory: it runs for itself alone
  }
  return false;
}

/// Takes it off the table. Its entry there, to be let go of without the lock.
RequestRef Coalescer::forget_locked(Request& leader) noexcept {
  if (!std::exchange(leader.by_content->leads, false)) return nullptr;
  const auto [first, last] = leaders_.equal_range(leader.by_content->hash);
  for (auto it = first; it != last; ++it) {
    if (it->second.get() != &leader) continue;
    RequestRef entry = std::move(it->second);
    leaders_.erase(it);
    return entry;
  }
  return nullptr;
}

void Coalescer::finish(Request& leader, RequestList& out) noexcept {
  RequestRef entry;
  const MutexLock lock(mutex_);
  if (!leader.by_content->leads) return;
  entry = forget_locked(leader);
  const IntrusivePtr<Followers> followers = std::exchange(leader.by_content->followers, nullptr);
  if (!followers) return;
  followers_ -= followers->count;
  followers->count = followers->ended = 0;
  followers->waiting.swap(out);
}

RequestRef Coalescer::pass_on(Request& leader) noexcept {
  RequestRef entry;
  RequestList ended;
  const MutexLock lock(mutex_);
  if (!leader.by_content->leads) return nullptr;
  IntrusivePtr<Followers> followers = std::exchange(leader.by_content->followers, nullptr);
  RequestRef heir;
  if (followers) {
    RequestList all;
    all.swap(followers->waiting);
    followers->count = 0;
    while (RequestRef one = all.pop()) {
      --followers_;
      if (is_claimed(*one)) {
        ended.push(std::move(one));
        if (followers->ended) --followers->ended;
        continue;
      }
      if (!heir || goes_before(*one, *heir)) std::swap(one, heir);
      if (!one) continue;
      followers->waiting.push(std::move(one));
      ++followers->count;
      ++followers_;
    }
  }
  if (!heir) {
    entry = forget_locked(leader);
    return nullptr;
  }
  heir->inputs = std::move(leader.inputs);
  // In its place in the table: to make another could fail.
  const auto [first, last] = leaders_.equal_range(leader.by_content->hash);
  for (auto it = first; it != last; ++it) {
    if (it->second.get() != &leader) continue;
    entry = std::exchange(it->second, heir);
    break;
  }
  leader.by_content->leads = false;
  heir->by_content->leads = true;
  return heir;
}

void Coalescer::ended(Request& follower) noexcept {
  RequestList out;
  const MutexLock lock(mutex_);
  Followers* followers = follower.by_content->followers.get();
  if (follower.by_content->leads || !followers || followers->count == 0) return;
  if (++followers->ended < kFewEnded || 2 * followers->ended < followers->count) return;
  followers->ended = 0;
  take_out_locked(*followers, out, is_claimed);
}

/// Moves those to `out` for which that is so.
template <class Which>
void Coalescer::take_out_locked(Followers& of, RequestList& out, Which&& which) noexcept {
  RequestList others;
  while (RequestRef request = of.waiting.pop()) {
    if (!which(*request)) {
      others.push(std::move(request));
      continue;
    }
    out.push(std::move(request));
    --of.count;
    --followers_;
  }
  of.waiting.swap(others);
}

void Coalescer::sweep(Nanos now, RequestList& due) noexcept {
  const MutexLock lock(mutex_);
  for (const auto& [hash, leader] : leaders_) {
    Followers* followers = leader->by_content->followers.get();
    if (followers) take_out_locked(*followers, due, [now](const Request& r) { return r.deadline <= now; });
  }
}

bool Coalescer::waited_for(const Request& leader) const noexcept {
  const MutexLock lock(mutex_);
  if (!leader.by_content->leads || !leader.by_content->followers) return false;
  for (const Request* one = leader.by_content->followers->waiting.first(); one; one = RequestList::next(*one)) {
    if (!is_claimed(*one)) return true;
  }
  return false;
}

}  // namespace inferkit
