#include "engine/ops/common/convert.h"

#include "engine/ops/dispatch.h"
#include "kernels/cpu/half/half.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

struct ConvertParams {
  int64_t count;
};

template <class From, class To>
void convert_step(const void* params, std::byte* const* io, const ExecContext&) {
  const int64_t n = static_cast<const ConvertParams*>(params)->count;
  auto* out = reinterpret_cast<To*>(io[0]);
  const auto* in = reinterpret_cast<const From*>(io[1]);
  in_blocks(n, [&](int64_t first, int64_t last) {
    if constexpr (kIsHalfType<From> && std::is_same_v<To, float>) {
      kernels::widen(in + first, out + first, last - first);
    } else if constexpr (std::is_same_v<From, float> && kIsHalfType<To>) {
      kernels::narrow(in + first, out + first, last - first);
    } else {
      for (int64_t i = first; i < last; ++i) out[i] = store<To>(static_cast<Compute<To>>(load(in[i])));
    }
  });
}

}  // namespace

void lower_convert(LowerContext& c, Ref in, DType from, Ref out, DType to, int64_t count) {
  const StepFn fn = dispatch<kFloatTypes>(from, [&]<class From>() -> StepFn {
    return dispatch<kFloatTypes>(to, []<class To>() -> StepFn { return convert_step<From, To>; });
  });
  if (!fn) c.unsupported(cat("a conversion from ", dtype_name(from), " to ", dtype_name(to)));
  c.step(fn, ConvertParams{count}, {out, in}, static_cast<double>(count) / 8);
}

Ref converted(LowerContext& c, Ref in, DType from, DType to, int64_t count) {
  if (from == to || !in.valid()) return in;
  const Ref out = c.scratch(static_cast<size_t>(count) * dtype_size(to));
  lower_convert(c, in, from, out, to, count);
  return out;
}

Ref begin_output(LowerContext& c, size_t o, DType type) {
  const Ref out = c.out(o);
  if (!out.valid() || c.output(o).dtype == type) return out;
  return c.scratch(static_cast<size_t>(c.output(o).shape.elements()) * dtype_size(type));
}

void end_output(LowerContext& c, size_t o, Ref computed, DType type) {
  if (!computed.valid() || c.output(o).dtype == type) return;
  lower_convert(c, computed, type, c.out(o), c.output(o).dtype, c.output(o).shape.elements());
}

}  // namespace inferkit
