#include "batching/completion.h"

#include <algorithm>
#include <utility>

#include "batching/request.h"

namespace inferkit {

CompletionList::CompletionList() = default;
CompletionList::~CompletionList() {
  while (pop(ended_)) {
  }
}

IntrusivePtr<Request> CompletionList::pop(Ended& ended) noexcept {
  Request* request = ended.first;
  if (!request) return nullptr;
  ended.first = std::exchange(request->ended_next_, nullptr);
  --ended.count;
  return IntrusivePtr<Request>::adopt(request);
}

void CompletionList::push(IntrusivePtr<Request> ref) noexcept {
  Request* request = ref.detach();
  MutexLock lock(mutex_);
  (ended_.first ? ended_.last->ended_next_ : ended_.first) = request;
  ended_.last = request;
  ++ended_.count;
}

void CompletionList::take(std::vector<IntrusivePtr<Request>>& out) {
  Ended ended;
  {
    MutexLock lock(mutex_);
    std::swap(ended, ended_);
  }
  if (!ended.first) return;
  try {
    const size_t needed = out.size() + ended.count;
    if (needed > out.capacity()) out.reserve(std::max(needed, 2 * out.capacity()));  // none once warm
  } catch (...) {
    {
      MutexLock lock(mutex_);
      ended.last->ended_next_ = ended_.first;  // before those that have come since
      if (!ended_.first) ended_.last = ended.last;
      ended_.first = ended.first;
      ended_.count += ended.count;
    }
    notify();
    throw;
  }
  while (IntrusivePtr<Request> request = pop(ended)) out.push_back(std::move(request));
}

}  // namespace inferkit
