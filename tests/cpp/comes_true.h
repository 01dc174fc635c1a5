// Waiting for what another thread does.
#pragma once
#include <chrono>
#include <thread>

namespace inferkit {

/// Whether `condition` came true within ten seconds.
template <class F>
bool comes_true(F&& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace inferkit
