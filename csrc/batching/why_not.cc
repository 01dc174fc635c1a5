#include "batching/why_not.h"

#include <array>
#include <cstddef>

namespace inferkit {

std::string_view why_not_name(WhyNot why) {
  static constexpr std::array<std::string_view, kWhyNotCount> kNames = {
      "queue_full", "waiting_full", "client_share",      "client_rate", "clients_full",    "memory",   "closed",
      "passed",     "too_late",     "makes_others_late", "no_room",     "expired_waiting", "left_out", "ran_late"};
  return kNames[static_cast<size_t>(why)];
}

}  // namespace inferkit
