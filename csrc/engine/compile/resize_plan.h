// Where the elements of a Resize or an Upsample come from, for the lowerings of every device.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "graph/op_schema.h"

namespace inferkit {

enum class ResizeMode : uint8_t { kNearest, kLinear, kCubic };

/// One axis, as attributes and inputs say.
struct ResizeAxis {
  int64_t in = 1, out = 1;
  double scale = 1;  // out / in, before that was rounded to elements
  double roi_begin = 0, roi_end = 1;
};

struct ResizePlan {
  ResizeMode mode = ResizeMode::kNearest;
  std::string coordinates, nearest;
  std::vector<ResizeAxis> axes;
  double cubic_a = -0.75;
  bool exclude_outside = false, antialias = false;
  float extrapolation = 0;
};

/// What the attributes say; throws where they are not supported.
ResizePlan resize_attributes(const NodeContext& c);
/// With what the inputs say.
ResizePlan resize_plan(const NodeContext& c);

/// Output o is the sum of weights[o taps + t] * input[index[o taps + t]]; an index of -1 in its first tap stands for
/// the extrapolation value.
struct ResizeTable {
  int64_t taps = 1;
  std::vector<int64_t> index;
  std::vector<double> weights;

  bool is_identity(const ResizeAxis& a) const {
    if (a.in != a.out) return false;
    for (int64_t o = 0; o < a.out; ++o) {
      for (int64_t t = 0; t < taps; ++t) {
        const auto at = static_cast<size_t>(o * taps + t);
        if (weights[at] != 0 && (index[at] != o || weights[at] != 1)) return false;
      }
    }
    return true;
  }
  bool extrapolates() const { return std::find(index.begin(), index.end(), -1) != index.end(); }
};

ResizeTable resize_table(const NodeContext& c, const ResizePlan& p, const ResizeAxis& a);

}  // namespace inferkit
