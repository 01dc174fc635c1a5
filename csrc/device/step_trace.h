// What every step of every run takes, while somebody asks for it.
#pragma once
#include <array>
#include <atomic>
#include <string_view>

#include "telemetry/trace_ring.h"

namespace inferkit {

/// Null while steps are not traced. The ring is made at the first time and never destroyed: runs may hold it.
/// Released when it is set, acquired by runs: they see the ring whole.
inline std::atomic<TraceRing*> step_trace{nullptr};

/// What a record holds of a step: its operator and the end of its node's name, where names of one model differ.
class StepName {
 public:
  /// Of a Node::step_label().
  explicit StepName(std::string_view label);
  std::string_view view() const { return {text_.data(), size_}; }

 private:
  void append(std::string_view text);
  std::array<char, TraceRecord::kNameBytes> text_{};
  size_t size_ = 0;
};

/// Steps are traced from now on, or no longer. `capacity` holds at the first call alone.
void trace_steps(bool on, size_t capacity);
/// The last ones, oldest first: name, started, finished and thread are set.
std::vector<TraceRecord> traced_steps();

}  // namespace inferkit
