#include "engine/ops/common/text_cast.h"

#include "base/text.h"
#include "engine/ops/common/text_number.h"
#include "engine/ops/dispatch.h"
#include "engine/plan/text_heap.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr int64_t kFormatNanos = 60, kParseNanos = 40;

template <class T>
void to_text_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  const auto* x = reinterpret_cast<const T*>(io[0]);
  auto* y = reinterpret_cast<std::string_view*>(io[1]);
  TextHeap& heap = TextHeap::current();
  WorkMeter meter;
  for (int64_t i = 0; i < count && meter.go_on(kFormatNanos); ++i) {
    char* to = heap.allocate(kMostNumberText);
    const size_t size = format_number(x[i], to);
    heap.give_back(kMostNumberText - size);
    y[i] = {to, size};
  }
}

template <class T>
void from_text_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t count = *static_cast<const int64_t*>(params);
  const auto* x = reinterpret_cast<const std::string_view*>(io[0]);
  auto* y = reinterpret_cast<T*>(io[1]);
  WorkMeter meter;
  for (int64_t i = 0; i < count && meter.go_on(kParseNanos + static_cast<int64_t>(x[i].size())); ++i) {
    const std::optional<T> value = parse_number<T>(x[i]);
    if (!value) {
      throw Error(ErrorCode::kInference, cat("the string ", quote(x[i]), " at ", i, " is not a number that ",
                                             dtype_name(kDTypeOf<T>), " holds"));
    }
    y[i] = *value;
  }
}

}  // namespace

void lower_to_text(LowerContext& c, Ref in, DType from, Ref out, int64_t count) {
  const StepFn fn = dispatch<kAllTypes>(from, []<class T>() -> StepFn { return to_text_step<T>; });
  if (!fn) c.unsupported(cat("a cast from ", dtype_name(from), " to string"));
  c.step(fn, count, {in, out}, multiplied(count, kFormatNanos));
}

void lower_from_text(LowerContext& c, Ref in, Ref out, DType to, int64_t count) {
  const StepFn fn = dispatch<kAllTypes>(to, []<class T>() -> StepFn { return from_text_step<T>; });
  if (!fn) c.unsupported(cat("a cast from string to ", dtype_name(to)));
  c.step(fn, count, {in, out}, multiplied(count, kParseNanos));
}

}  // namespace inferkit
