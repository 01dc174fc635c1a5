#include "memory/odd_bytes.h"

#include "memory/copy_room.h"
#include "platform/aligned_alloc.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

/// Large ones have pages of their own, which the system is asked for at once; a process can have some ten thousands of
/// such mappings.
std::shared_ptr<std::byte> room_for(size_t bytes) {
  constexpr size_t kOwnPages = size_t{256} << 10;
  if (bytes >= kOwnPages) return CopyRoom().take(bytes, bytes);
  return {static_cast<std::byte*>(aligned_allocate(bytes)), aligned_free};
}

}  // namespace

// Relaxed: whoever destroys it has been handed it by all who used it.
OddBytes::~OddBytes() { delete copy_.load(std::memory_order_relaxed); }

const std::byte* OddBytes::aligned() const {
  // Acquired here and released below: who sees the copy sees what is in it.
  if (const Copy* copy = copy_.load(std::memory_order_acquire)) return copy->get();
  const auto room = room_for(place_.size());
  copy_in_blocks(room.get(), place_.data(), place_.size());
  RunControl::check();  // where it is to stop, some blocks were left out
  auto made = std::make_unique<const Copy>(room);
  const Copy* none = nullptr;
  if (copy_.compare_exchange_strong(none, made.get(), std::memory_order_acq_rel)) return made.release()->get();
  return none->get();
}

}  // namespace inferkit
