// Requests that differ in one length alone, made alike: what is filled up with what, to how long, and how an answer is
// cut back.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/shape.h"
#include "base/tensor_view.h"
#include "base/validation.h"
#include "engine/runner.h"

namespace inferkit {

/// An input along one axis of which requests are filled up.
struct PaddedInput {
  size_t axis = 0;                     // of a request's tensor, the batch axis counted; 0: this input is not padded
  std::array<std::byte, 8> element{};  // what it is filled up with: as many bytes of it as the element has
};

/// What a batcher is told.
struct PadOptions {
  std::vector<PaddedInput> inputs{};  // one for each input; empty: nothing is padded
  std::vector<int64_t> lengths{};     // to which, ascending; empty: those of length_above()
  int64_t longest = 0;                // what is longer is not padded; 0: any length is
};

/// The lengths that are padded to where none are given: four for each power of two, from 8 on. So less than a fifth of
/// a longer row is padding, and a tenth on average.
int64_t length_above(int64_t length);

/// Immutable.
class Padding {
 public:
  static constexpr int64_t kLongest = (int64_t{1} << 31) - 1;  // what is longer is not padded
  /// Throws std::invalid_argument where the inputs cannot be padded so.
  Padding(PadOptions options, std::span<const PortSpec> inputs);

  bool pads(size_t input) const { return options_.inputs[input].axis != 0; }
  const PaddedInput& input(size_t index) const { return options_.inputs[index]; }
  /// The first that is padded.
  size_t first() const { return first_; }
  /// Which length a request of `length` is padded to: its own, where it is longer than all of them.
  int64_t length_for(int64_t length) const;
  /// All of them, up to the one that holds `most`, or the longest; with 0 up to the longest, none where there is none.
  std::vector<int64_t> lengths(int64_t most) const;
  /// 0 where there is none.
  int64_t longest() const { return options_.longest; }

 private:
  PadOptions options_;
  size_t first_ = 0;
};

/// Copies `count` rows of a request to `to`, each filled up. `row` is the shape of a padded one, `length` the
/// request's.
void fill_up(const PaddedInput& input, DType dtype, const Shape& row, int64_t count, int64_t length,
             const std::byte* from, std::byte* to);

/// Moves rows together in place, so that of each axis of `follows` the first `length` places remain. `shape` is theirs,
/// their number in front.
void cut_back(std::byte* rows, const Shape& shape, Axes follows, int64_t length, size_t element);
/// The shape that is left.
Shape cut_shape(Shape shape, Axes follows, int64_t length);

}  // namespace inferkit
