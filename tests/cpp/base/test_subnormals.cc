// Subnormal numbers in memory.
#include <bit>
#include <limits>
#include <vector>

#include "base/subnormals.h"
#include "test.h"

using namespace inferkit;

namespace {

template <class T, class Bits>
void check_flushing(DType dtype) {
  using Limits = std::numeric_limits<T>;
  const T kept[] = {T(0),
                    -T(0),
                    T(1),
                    -T(1.5),
                    Limits::min(),
                    -Limits::min(),
                    Limits::max(),
                    Limits::infinity(),
                    -Limits::infinity(),
                    std::bit_cast<T>(static_cast<Bits>(~Bits{0}))};  // a NaN with a payload
  std::vector<T> values(kept, std::end(kept));
  flush_subnormals(dtype, values.data(), static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    CHECK_EQ(std::bit_cast<Bits>(values[i]), std::bit_cast<Bits>(kept[i]));
  }
  for (const T tiny : {Limits::denorm_min(), Limits::min() - Limits::denorm_min()}) {
    for (const T sign : {T(1), T(-1)}) {
      std::vector<T> flushed(37, sign * tiny);
      flush_subnormals(dtype, flushed.data(), 36);
      for (size_t i = 0; i < 36; ++i) CHECK_EQ(std::bit_cast<Bits>(flushed[i]), std::bit_cast<Bits>(sign * T(0)));
      CHECK_EQ(std::bit_cast<Bits>(flushed[36]), std::bit_cast<Bits>(sign * tiny));
    }
  }
}

}  // namespace

TEST(subnormals_are_flushed_and_all_else_is_kept) {
  check_flushing<float, uint32_t>(DType::kF32);
  check_flushing<double, uint64_t>(DType::kF64);
  uint16_t half = 1;  // float16's smallest
  flush_subnormals(DType::kF16, &half, 1);
  CHECK_EQ(half, 1);
}
