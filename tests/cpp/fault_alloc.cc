#include "fault_alloc.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<bool> armed{false}, only_mine{false};
std::atomic<uint64_t> asked_count{0}, failed_count{0}, first_fault{0}, faults{0};
thread_local bool mine = false;

bool fails() noexcept {
  if (!armed.load(std::memory_order_relaxed)) return false;
  if (only_mine.load(std::memory_order_relaxed) && !mine) return false;
  const uint64_t number = asked_count.fetch_add(1, std::memory_order_relaxed);
  const uint64_t first = first_fault.load(std::memory_order_relaxed);
  if (number < first || number - first >= faults.load(std::memory_order_relaxed)) return false;
  failed_count.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void* get(std::size_t bytes, std::size_t alignment) noexcept {
  if (fails()) return nullptr;
  if (bytes == 0) bytes = 1;
  if (alignment <= alignof(std::max_align_t)) return std::malloc(bytes);
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

void* get_or_throw(std::size_t bytes, std::size_t alignment) {
  void* memory = get(bytes, alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t n) { return get_or_throw(n, 1); }
void* operator new[](std::size_t n) { return get_or_throw(n, 1); }
void* operator new(std::size_t n, std::align_val_t a) { return get_or_throw(n, std::size_t(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return get_or_throw(n, std::size_t(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return get(n, 1); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return get(n, 1); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }

namespace inferkit::testing {

FaultAlloc::FaultAlloc(uint64_t first, uint64_t count, FaultScope scope) {
  mine = true;
  only_mine = scope == FaultScope::kThisThread;
  asked_count = failed_count = 0;
  first_fault = first;
  faults = count;
  armed = true;
}

void FaultAlloc::disarm() {
  armed = false;
  mine = false;
}

uint64_t FaultAlloc::asked() const { return asked_count; }
uint64_t FaultAlloc::failed() const { return failed_count; }

}  // namespace inferkit::testing
