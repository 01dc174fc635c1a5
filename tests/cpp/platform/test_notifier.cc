#include <poll.h>

#include <atomic>
#include <thread>

#include "platform/notifier.h"
#include "test.h"

using namespace inferkit;

namespace {
bool readable(const Notifier& n, int timeout_ms = 0) {
  pollfd p{n.fd(), POLLIN, 0};
  return ::poll(&p, 1, timeout_ms) == 1;
}
}  // namespace

TEST(notifier_coalesces) {
  Notifier n;
  CHECK(!readable(n));
  n.notify();
  n.notify();
  CHECK(readable(n));
  n.drain();
  CHECK(!readable(n));
  n.drain();  // nothing to read: must not block
  n.notify();
  CHECK(readable(n));
}

TEST(notifier_never_loses_news) {
  Notifier n;
  std::atomic<int> news{0};
  constexpr int kCount = 20000;
  std::thread waker([&] {
    for (int i = 1; i <= kCount; ++i) {
      news.store(i, std::memory_order_relaxed);
      n.notify();
    }
  });
  int seen = 0;
  while (seen < kCount) {
    if (!readable(n, 5000)) {
      CHECK(!"a wake-up was lost");
      break;
    }
    n.drain();
    seen = news.load(std::memory_order_relaxed);
  }
  waker.join();
}
