// Why a request got no answer.
#pragma once
#include <cstdint>
#include <string_view>

namespace inferkit {

enum class WhyNot : uint8_t {
  // Refused when it came:
  kQueueFull,    // there was no place in the queue
  kWaitersFull,  // nor among those that wait for one
  kClientShare,  // its client had as many places as were free
  kClientRate,   // its client had used its rate up
  kClients,      // too many clients have requests
  kMemory,       // the buffer pool was exhausted
  kClosed,       // the batcher took no more requests; also those that waited when it was closed
  kPassed,       // its deadline had passed
  kLate,         // by what runs take it could not be answered in time
  kOthersLate,   // nor could others, had it gone before them
  // Dropped later:
  kNoRoom,   // it had waited for room as long as it was to
  kExpired,  // its deadline passed while it waited
  kLeftOut,  // its run would have been over too late
  kRanLate,  // its run was over too late, or still under way
};
inline constexpr int kWhyNotCount = 14;
inline constexpr bool is_refusal(WhyNot why) { return why < WhyNot::kNoRoom; }

/// As stats(), metrics and the trace call it.
std::string_view why_not_name(WhyNot why);

}  // namespace inferkit
