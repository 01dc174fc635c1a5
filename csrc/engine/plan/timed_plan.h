// A plan whose steps clock themselves, for profiles: runs that nobody measures do not even ask.
#pragma once
#include <memory>
#include <span>

#include "engine/plan/plan.h"
#include "platform/clock.h"

namespace inferkit {

/// The same plan; each run of it writes how long step i took to taken[i]. One run at a time; `taken` must outlive it.
std::shared_ptr<const Plan> timed(const std::shared_ptr<const Plan>& plan, std::span<Nanos> taken);

}  // namespace inferkit
