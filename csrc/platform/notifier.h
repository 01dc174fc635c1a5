// A file descriptor that wakes an event loop.
#pragma once
#include <atomic>

namespace inferkit {

/// An eventfd, owned. The waker publishes its news, then calls notify(); the loop polls fd() for reading, calls drain()
/// when it is readable and only then looks for news. However often notify() is called in between, it is one write and
/// one wake-up, and news that was published before notify() is never missed.
class Notifier {
 public:
  /// Throws std::system_error where the process is out of file descriptors.
  Notifier();
  ~Notifier();
  Notifier(const Notifier&) = delete;
  Notifier& operator=(const Notifier&) = delete;

  /// Any thread; never blocks.
  void notify();
  /// The loop's thread.
  void drain();
  int fd() const { return fd_; }
  /// Any thread: whether notify() has been called since the last drain(). A hint.
  bool pending() const { return pending_.load(std::memory_order_relaxed); }

 private:
  const int fd_;
  std::atomic<bool> pending_{false};
};

}  // namespace inferkit
