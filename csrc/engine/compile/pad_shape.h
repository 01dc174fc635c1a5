// What a Pad asks for, for the lowerings of every device.
#pragma once
#include <string>
#include <vector>

#include "base/counted.h"
#include "engine/compile/lower.h"

namespace inferkit {

enum class PadMode : uint8_t { kConstant, kReflect, kEdge, kWrap };

inline PadMode pad_mode(const NodeContext& c) {
  const std::string mode = c.attr_string("mode", "constant");
  if (mode == "constant") return PadMode::kConstant;
  if (mode == "reflect") return PadMode::kReflect;
  if (mode == "edge") return PadMode::kEdge;
  if (mode == "wrap" && c.version() >= 18) return PadMode::kWrap;  // of opset 19; PyTorch writes it into 18, too
  c.unsupported("mode '" + mode + "'");
}

struct Pads {
  std::vector<int64_t> before, after;  // one per dimension
};

inline Pads pads_of(const NodeContext& c) {
  const size_t rank = c.input(0).shape.rank();
  const bool inputs = c.version() >= 11;
  const std::vector<int64_t> pads = inputs ? c.const_ints(1) : c.attr_ints("pads");
  std::vector<int64_t> axes;
  if (c.version() >= 18 && c.has_input(3)) {
    axes = c.const_ints(3);
  } else {
    for (size_t i = 0; i < rank; ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (pads.size() != 2 * axes.size())
    c.fail(cat(counted(pads.size(), "pad"), " for ", counted(axes.size(), "dimension")));
  Pads out{std::vector<int64_t>(rank, 0), std::vector<int64_t>(rank, 0)};
  std::vector<bool> seen(rank, false);
  for (size_t i = 0; i < axes.size(); ++i) {
    const auto axis = static_cast<size_t>(c.resolve_axis(axes[i], static_cast<int64_t>(rank)));
    if (seen[axis]) c.fail(cat("axis ", axes[i], " is named twice"));
    seen[axis] = true;
    out.before[axis] = pads[i];
    out.after[axis] = pads[axes.size() + i];
  }
  return out;
}

/// Where position i of a padded line of n elements comes from; i is counted from the line's first element, and may be
/// anywhere. -1 for the constant.
inline int64_t pad_source(PadMode mode, int64_t i, int64_t n) {
  if (i >= 0 && i < n) return i;
  const auto modulo = [](int64_t v, int64_t m) { return ((v % m) + m) % m; };
  switch (mode) {
    case PadMode::kConstant:
      return -1;
    case PadMode::kEdge:
      return i < 0 ? 0 : n - 1;
    case PadMode::kWrap:
      return modulo(i, n);
    case PadMode::kReflect: {
      if (n == 1) return 0;
      const int64_t near = i < 0 ? -i : 2 * (n - 1) - i;
      if (near >= 0 && near < n) return near;
      const int64_t m = modulo(i, 2 * (n - 1));
      return m < n ? m : 2 * (n - 1) - m;
    }
  }
  return -1;
}

}  // namespace inferkit
