#include "engine/step_trace.h"

#include <memory>
#include <mutex>

namespace inferkit {
namespace {

std::mutex making;  // guards the making of the ring
std::atomic<TraceRing*> ring{nullptr};

}  // namespace

void trace_steps(bool on, size_t capacity) {
  const std::scoped_lock lock(making);
  if (on && !ring.load(std::memory_order_relaxed)) {
    ring.store(std::make_unique<TraceRing>(capacity).release(), std::memory_order_release);
  }
  step_trace.store(on ? ring.load(std::memory_order_relaxed) : nullptr, std::memory_order_release);
}

std::vector<TraceRecord> traced_steps() {
  const TraceRing* made = ring.load(std::memory_order_acquire);
  return made ? made->read() : std::vector<TraceRecord>{};
}

}  // namespace inferkit
