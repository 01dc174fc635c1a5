#include "base/subnormals.h"

namespace inferkit {
namespace {

/// All are written, so that the loop has no branch.
template <class Bits, Bits kExponent>
void flush(void* values, int64_t count) {
  constexpr Bits kSign = Bits{1} << (8 * sizeof(Bits) - 1);
  auto* v = static_cast<Bits*>(values);
  for (int64_t i = 0; i < count; ++i) v[i] = v[i] & kExponent ? v[i] : v[i] & kSign;
}

}  // namespace

void flush_subnormals(DType dtype, void* values, int64_t count) {
  if (dtype == DType::kF32) flush<uint32_t, 0x7f800000>(values, count);
  if (dtype == DType::kF64) flush<uint64_t, 0x7ff0000000000000>(values, count);
}

}  // namespace inferkit
