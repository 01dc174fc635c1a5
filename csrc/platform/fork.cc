#include "platform/fork.h"

#include <pthread.h>

namespace inferkit {

std::atomic<uint32_t> detail::forks{0};

namespace {
void in_child() { detail::forks.fetch_add(1, std::memory_order_relaxed); }
// When the library is loaded, so that those who ask have nothing to see to.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, in_child);
}  // namespace

}  // namespace inferkit
