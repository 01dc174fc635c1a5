#include "batching/pace.h"

#include <new>

#include "batching/pays.h"

namespace inferkit {

void Pace::renew(Nanos now, const PaceOptions& options, int64_t most, const CostCurve& curve) noexcept {
  const auto cost = [&](int64_t rows) { return curve.forecast(rows); };
  const Nanos usual = curve.typical(std::clamp<int64_t>(curve.recent_rows(), 1, most));
  is_slow_ = usual >= kShortRun || enough_ < most;
  if (options.sizes && is_slow_) {
    const int64_t pays = rows_that_pay(most, std::min(enough_, most), cost);
    enough_ = pays < most ? pays : std::numeric_limits<int64_t>::max();
    tries_ = rows_to_try(most, pays, cost);
  }
  pays_ = enough_;
  if (options.target > 0) {
    const double trust = options.watch ? options.watch->trust() : 1;
    const auto usable = static_cast<Nanos>(trust * double(options.target));
    plan_ = plan_for(usable, rate_.per_second(now), options.workers, most, options.longest, cost);
    if (plan_.rows > 0) {
      pays_ = std::min(pays_, plan_.rows);
      tries_ = tries_ <= plan_.rows ? tries_ : 0;
    }
  }
  renewed_ = now;
  // Where there is no memory for it, nobody waits.
  if (options.company && !company_ && usual >= kShortRun) company_.reset(new (std::nothrow) Companions);
}

PaceFigures Pace::figures(Nanos now, int64_t most, const CostCurve& curve) const noexcept {
  PaceFigures out;
  out.most = most;
  out.pays = std::min(pays_, most);
  if (company_) out.company = company_->gathering().span;
  out.alone = curve.forecast(1).typical;
  out.of_paying = curve.forecast(out.pays).typical;
  out.of_most = curve.forecast(most).typical;
  out.delay = delay();
  out.expected = plan_.expected;
  out.kept = plan_.kept;
  out.rate = rate_.per_second(now);
  return out;
}

}  // namespace inferkit
