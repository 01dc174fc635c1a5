// Packing the right side of a product within a run, which may be left between the panels.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "platform/run_control.h"

namespace inferkit {

/// `b` is [k, n], or [n, k] where it is transposed. P is what a panel holds: of bf16, pairs.
template <class T, class P>
void pack_in_blocks(const T* b, bool transposed, int64_t k, int64_t n, P* packed) {
  constexpr int64_t kColumns = 64 / sizeof(P), kPer = std::is_same_v<P, uint32_t> ? 2 : 1;
  WorkMeter meter;
  const int64_t panels = (n + kColumns - 1) / kColumns;
  for_blocks(meter, 0, panels, std::max<int64_t>(1, k * kColumns / 4), [&](int64_t first, int64_t last) {
    const int64_t column = first * kColumns, columns = std::min(n, last * kColumns) - column;
    P* to = packed + column * ((k + kPer - 1) / kPer);
    transposed ? kernels::pack_b_transposed(b + column * k, k, k, columns, to)
               : kernels::pack_b(b + column, n, k, columns, to);
  });
}

}  // namespace inferkit
