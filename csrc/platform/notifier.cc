#include "platform/notifier.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

namespace inferkit {

Notifier::Notifier() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

Notifier::~Notifier() { ::close(fd_); }

void Notifier::notify() {
  // Acquire and release: this exchange and drain()'s are one chain, so that whoever finds the flag up has handed its
  // news to the drain() that will take it down.
  if (pending_.exchange(true, std::memory_order_acq_rel)) return;
  const uint64_t one = 1;
  while (::write(fd_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void Notifier::drain() {
  // Read first: were the flag lowered first, a write in between would be swallowed and leave it up for good.
  uint64_t count;
  while (::read(fd_, &count, sizeof count) < 0 && errno == EINTR) {
  }
  pending_.exchange(false, std::memory_order_acq_rel);
}

}  // namespace inferkit
