// One thread waits for another, but not for ever.
#pragma once
#include <chrono>
#include <future>

namespace inferkit::testing {

/// A door that stays shut until somebody opens it, or for ten seconds, by when the test has failed.
class Door {
 public:
  void open() { promise_.set_value(); }
  bool pass() { return future_.wait_for(std::chrono::seconds(10)) == std::future_status::ready; }

 private:
  std::promise<void> promise_;
  std::shared_future<void> future_ = promise_.get_future();
};

}  // namespace inferkit::testing
