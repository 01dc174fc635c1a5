#include "device/step_trace.h"

#include <algorithm>
#include <memory>
#include <mutex>

namespace inferkit {
namespace {

std::mutex making;  // guards the making of the ring
std::atomic<TraceRing*> ring{nullptr};

}  // namespace

StepName::StepName(std::string_view label) {
  constexpr std::string_view kPrefix = "node '", kMiddle = "' (", kCut = "..";
  const size_t middle = label.rfind(kMiddle);
  if (!label.starts_with(kPrefix) || middle == std::string_view::npos) {
    append(label);
    return;
  }
  const std::string_view op = label.substr(middle + kMiddle.size(), label.size() - middle - kMiddle.size() - 1);
  std::string_view name = label.substr(kPrefix.size(), middle - kPrefix.size());
  append(op);
  append(" ");
  if (const size_t room = text_.size() - size_; name.size() > room) {
    append(kCut);
    name.remove_prefix(name.size() - std::min(name.size(), text_.size() - size_));
  }
  append(name);
}

void StepName::append(std::string_view text) {
  const size_t count = std::min(text.size(), text_.size() - size_);
  std::copy_n(text.data(), count, text_.data() + size_);
  size_ += count;
}

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
