#include "engine/ops/common/convert.h"

#include "engine/ops/common/cast_elements.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

struct ConvertParams {
  int64_t count, from_size, to_size;
  CastFn fn;
};

void run_convert(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const ConvertParams*>(params);
  constexpr int64_t kGrain = 1 << 15;  // elements worth a thread
  for_ranges(context, p.count, kGrain, [&](int64_t begin, int64_t end) {
    in_blocks(end - begin, [&](int64_t first, int64_t last) {
      const int64_t at = begin + first;
      p.fn(io[0] + at * p.from_size, io[1] + at * p.to_size, last - first);
    });
  });
}

}  // namespace

void lower_convert(LowerContext& c, Ref in, DType from, Ref out, DType to, int64_t count) {
  const CastFn fn = cast_elements(from, to);
  if (!fn) c.unsupported(cat("a cast from ", dtype_name(from), " to ", dtype_name(to)));
  const auto size_of = [](DType t) { return static_cast<int64_t>(dtype_size(t)); };
  const double nanos = is_float(from) && is_float(to) ? 0.125 : 1;
  c.step(run_convert, ConvertParams{count, size_of(from), size_of(to), fn}, {in, out},
         static_cast<double>(count) * nanos);
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
