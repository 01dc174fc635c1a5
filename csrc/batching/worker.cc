#include "batching/worker.h"

#include "platform/threads.h"

namespace inferkit {

void Workers::start(const std::string& name, const std::function<void()>& body) {
  threads_.reserve(threads_.size() + 1);  // what can fail fails before there is a thread
  threads_.push_back(start_thread(name, body));
}

void Workers::join() {
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

}  // namespace inferkit
