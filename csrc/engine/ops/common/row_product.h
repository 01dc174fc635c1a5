// Products of rows of floats with constant weights that are bytes. Each row is rounded to bytes by its own range and
// the bytes are multiplied exactly: an answer hangs on its row alone, and is the same on every tier.
#pragma once
#include "engine/compile/lower.h"

namespace inferkit {

/// The longest sum that int32 holds, whatever the zero points.
inline constexpr int64_t kLongestRowSum = 0x7fffffff / (255 * 255);

/// Of one matrix of weights [k, n] among several.
struct RowWeights {
  int64_t k = 0, n = 0;
  int64_t matrix = 0;  // which of them
  bool is_signed = false;
  bool has_zero = false, zero_per_column = false;

  /// Bytes of scratch for so many rows.
  int64_t room(int64_t rows) const;
};

/// What a product reads, in this order.
struct RowOperands {
  Ref panels, scales, zeros;  // zeros: invalid where they are 0
};

/// Input `weights` is [matrices, k, n], `scale` and `zero` have one value for each matrix or for each of its columns;
/// all of them are constant, and `zero` may be left out.
RowOperands row_weights(LowerContext& c, size_t weights, size_t scale, size_t zero, RowWeights& about);

/// y = base + x W for `rows` rows.
struct RowProduct {
  const RowWeights& weights;
  std::byte* const* operands;  // those of RowOperands
  const float* x;
  int64_t rows, x_row;
  const float* base;  // null for zeros; may be y
  int64_t base_row;
  float* y;
  int64_t y_row;
  std::byte* room;
};
/// Null: on this thread.
void row_product(const RowProduct& p, const ExecContext* threads);

/// Adds a step for y [rows, n] = x [rows, k] W + bias (n values, or none).
void lower_row_product(LowerContext& c, Ref y, Ref x, int64_t rows, const RowWeights& about,
                       const RowOperands& operands, Ref bias);

}  // namespace inferkit
