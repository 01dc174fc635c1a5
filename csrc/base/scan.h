// Copying a strided tensor into contiguous memory and scanning it for NaN and infinity in the same pass.
#pragma once
#include <array>
#include <cstdint>
#include <optional>

#include "base/dtype.h"
#include "base/shape.h"
#include "base/tensor_view.h"

namespace inferkit {

/// A tensor that somebody else owns, laid out as numpy lays it out: strides in bytes, of either sign or zero.
struct StridedView {
  DType dtype = DType::kF32;
  Shape shape;
  std::array<int64_t, Shape::kMaxRank> byte_strides{};
  const void* data = nullptr;

  /// A row-major view of the same elements.
  static StridedView contiguous(const TensorView& tensor);
  /// True where the elements lie row-major and gapless, so that data can be read as a TensorView's.
  bool is_contiguous() const;
};

/// Of the values that are not finite, those that a scan lets through.
enum class NonFinite : uint8_t { kNone, kNan, kMinusInfinity, kPlusInfinity, kInfinity, kAll };

/// Copies `source` row-major to `target`, which holds all of it and does not overlap; reads each element once. A bool
/// whose byte is not 0 becomes 1. Returns false where a floating-point element is NaN or infinite and not `allowed`
/// (everything is copied all the same). The source need not be aligned.
bool copy_strided(const StridedView& source, void* target, NonFinite allowed);

/// True where every element is finite or allowed; always true of integers and bools.
bool all_finite(const StridedView& source, NonFinite allowed = NonFinite::kNone);
bool all_finite(const TensorView& source);

/// The row-major index of the first element that is neither finite nor allowed. Slow: for the message after a scan said
/// no.
std::optional<Shape> first_non_finite(const StridedView& source, NonFinite allowed = NonFinite::kNone);

}  // namespace inferkit
