// How much of its time a request that has to wait is judged to lack, as learnt from how many of those that were let in
// came too late.
#pragma once
#include <atomic>
#include <cstdint>

namespace inferkit {

/// An estimate of the part of a request's time by which forecasts are wrong hardly ever: every late one raises it,
/// every one in time lowers it by about a thousandth of that, so that it comes to rest where one in a thousand is late
/// (Robbins and Monro, "A Stochastic Approximation Method", 1951). Thread-safe, without a lock.
class Reserve {
 public:
  /// One that was let in has ended.
  void learn(bool late) noexcept;
  double part() const noexcept;

 private:
  std::atomic<int64_t> units_{0};
};

}  // namespace inferkit
