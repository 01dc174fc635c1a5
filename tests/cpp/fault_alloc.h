// Memory that runs out on purpose: the whole program's operator new throws std::bad_alloc where a test says so.
//
// A test program that wants it names fault_alloc.cc among its sources (tests/cpp/CMakeLists.txt). Kernels and pools
// that ask the system for aligned memory themselves are not reached.
#pragma once
#include <cstdint>

namespace inferkit::testing {

enum class FaultScope : uint8_t { kAnyThread, kThisThread };

/// From its construction to its destruction, or disarm(), allocation number `first` (from 0) and the `count - 1` that
/// follow it fail. One at a time.
class FaultAlloc {
 public:
  explicit FaultAlloc(uint64_t first, uint64_t count = 1, FaultScope scope = FaultScope::kAnyThread);
  ~FaultAlloc() { disarm(); }
  FaultAlloc(const FaultAlloc&) = delete;
  FaultAlloc& operator=(const FaultAlloc&) = delete;

  void disarm();
  /// How many were asked for while it was armed, and how many of them failed.
  uint64_t asked() const;
  uint64_t failed() const;
};

}  // namespace inferkit::testing
