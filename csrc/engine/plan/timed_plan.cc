#include "engine/plan/timed_plan.h"

#include <cstring>

namespace inferkit {
namespace {

struct TimedParams {
  StepFn fn;
  const void* params;
  Nanos* taken;
};

void timed_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const TimedParams*>(params);
  const Nanos started = SteadyClock::instance().now();
  p.fn(p.params, io, context);
  *p.taken = SteadyClock::instance().now() - started;
}

}  // namespace

std::shared_ptr<const Plan> timed(const std::shared_ptr<const Plan>& plan, std::span<Nanos> taken) {
  auto out = std::make_shared<Plan>();
  static_cast<Program&>(*out) = *plan;
  out->device = plan->device;
  out->inputs = plan->inputs;
  out->outputs = plan->outputs;
  out->files = plan->files;
  out->owners.push_back(plan);  // and with it what the steps and operands point into
  for (size_t i = 0; i < plan->steps.size(); ++i) {
    const TimedParams params{plan->steps[i].fn, plan->steps[i].params, &taken[i]};
    auto copy = std::make_unique<std::byte[]>(sizeof(params));
    std::memcpy(copy.get(), &params, sizeof(params));
    out->steps[i].fn = timed_step;
    out->steps[i].params = copy.get();
    out->params.push_back(std::move(copy));
  }
  return out;
}

}  // namespace inferkit
