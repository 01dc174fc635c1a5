#include "batching/completion.h"

#include <iterator>

#include "batching/request.h"

namespace inferkit {

CompletionList::CompletionList() = default;
CompletionList::~CompletionList() = default;

void CompletionList::push(IntrusivePtr<Request> request) {
  MutexLock lock(mutex_);
  ended_.push_back(std::move(request));
}

void CompletionList::take(std::vector<IntrusivePtr<Request>>& out) {
  MutexLock lock(mutex_);
  if (out.empty()) {
    out.swap(ended_);  // both keep their capacity: no allocation once warm
  } else {
    std::move(ended_.begin(), ended_.end(), std::back_inserter(out));
    ended_.clear();
  }
}

}  // namespace inferkit
