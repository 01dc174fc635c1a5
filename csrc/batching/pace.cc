#include "batching/pace.h"

#include <new>

#include "batching/pays.h"

namespace inferkit {

bool Pace::renew(const PaceOptions& options, int64_t most, const CostCurve& curve) noexcept {
  const auto cost = [&](int64_t rows) { return curve.forecast(rows); };
  const Nanos usual = curve.typical(std::clamp<int64_t>(curve.recent_rows(), 1, most));
  if (options.sizes && (usual >= kShortRun || pays_ < most)) {
    const int64_t before = std::min(pays_, most);
    const int64_t pays = rows_that_pay(most, before, cost);
    pays_ = pays < most ? pays : std::numeric_limits<int64_t>::max();
    tries_ = rows_to_try(most, pays, cost);
  }
  // Where there is no memory for it, nobody waits.
  if (options.company && !company_ && usual >= kShortRun) company_.reset(new (std::nothrow) Companions);
  return true;
}

PaceFigures Pace::figures(int64_t most, const CostCurve& curve) const noexcept {
  PaceFigures out;
  out.most = most;
  out.pays = std::min(pays_, most);
  if (company_) out.company = company_->gathering().span;
  out.alone = curve.forecast(1).typical;
  out.of_paying = curve.forecast(out.pays).typical;
  out.of_most = curve.forecast(most).typical;
  return out;
}

}  // namespace inferkit
