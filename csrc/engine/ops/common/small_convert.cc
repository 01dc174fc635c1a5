#include "engine/ops/common/small_convert.h"

#include "platform/run_control.h"

namespace inferkit {
namespace {

struct SmallParams {
  int64_t count;
  DType type;
  SmallRounding rounding;
};

void widen_float_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const SmallParams*>(params);
  const auto& values = small_float_values(p.type);
  in_blocks(p.count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      reinterpret_cast<float*>(io[0])[i] = values[std::to_integer<size_t>(io[1][i])];
    }
  });
}

void widen_integer_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const SmallParams*>(params);
  in_blocks(p.count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      io[0][i] = static_cast<std::byte>(small_integer(p.type, std::to_integer<uint8_t>(io[1][i])));
    }
  });
}

void narrow_float_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const SmallParams*>(params);
  const auto* x = reinterpret_cast<const float*>(io[1]);
  in_blocks(p.count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      io[0][i] = std::byte{p.type == DType::kF8E8M0 ? to_power_of_two(x[i], p.rounding.saturate, p.rounding.power)
                                                    : to_small_float(p.type, x[i], p.rounding.saturate)};
    }
  });
}

void narrow_integer_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const SmallParams*>(params);
  const size_t bits = dtype_bits(p.type);
  in_blocks(p.count, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) io[0][i] = std::byte{to_small_integer(bits, std::to_integer<int>(io[1][i]))};
  });
}

}  // namespace

Ref widened_small(LowerContext& c, Ref in, DType from, int64_t count) {
  if (!in.valid()) return in;
  const Ref out = c.scratch(static_cast<size_t>(count) * dtype_size(carrier_of(from)));
  c.step(is_small_float(from) ? widen_float_step : widen_integer_step, SmallParams{count, from, {}}, {out, in},
         static_cast<double>(count));
  return out;
}

void lower_narrow_small(LowerContext& c, Ref in, Ref out, DType to, SmallRounding rounding, int64_t count) {
  c.step(is_small_float(to) ? narrow_float_step : narrow_integer_step, SmallParams{count, to, rounding}, {out, in},
         static_cast<double>(count) * (is_small_float(to) ? 8 : 1));
}

}  // namespace inferkit
