// The shape of a transposed convolution, for the lowerings of every device.
#pragma once
#include <string>
#include <vector>

#include "base/counted.h"
#include "engine/compile/window.h"

namespace inferkit {

struct TransposeShape {
  Window window;                             // in and out as this operator sees them; pad_begin is cut off the output
  int64_t batch, groups, channels, filters;  // of one group
};

inline void set_padding(const NodeContext& c, WindowDim& d, const std::string& auto_pad, int64_t extra,
                        int64_t wished) {
  if (d.in > (int64_t{1} << 61) / d.stride) c.fail(cat("a stride of ", d.stride, " on a dimension of ", d.in));
  const int64_t full = (d.in - 1) * d.stride + (d.kernel - 1) * d.dilation + 1 + extra;
  const bool same = auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER";
  if (wished >= 0 || same) {
    d.out = wished >= 0 ? wished : d.in * d.stride;
    // As the specification has it, an output larger than what the windows reach is padded with nothing but the bias.
    const int64_t pad = std::max<int64_t>(0, full - d.out);
    d.pad_begin = auto_pad == "SAME_UPPER" ? pad / 2 : pad - pad / 2;
    d.pad_end = pad - d.pad_begin;
  } else {
    if (auto_pad == "VALID") d.pad_begin = d.pad_end = 0;
    d.out = full - d.pad_begin - d.pad_end;
  }
  if (d.out < 0) c.fail("the padding is larger than the output");
}

/// Of a node whose shape rule is infer_conv_transpose; throws where the inputs do not fit each other.
inline TransposeShape transpose_shape(const NodeContext& c) {
  const Shape &x = c.input(0).shape, &w = c.input(1).shape;
  if (w.rank() != x.rank() || w.rank() < 3) {
    c.fail(cat("expected [batch, channels, spatial...] and [channels, filters, kernel...], got ", x.str(), " and ",
               w.str()));
  }
  const std::vector<int64_t> kernel(w.begin() + 2, w.end());
  const auto declared = c.attr_ints("kernel_shape");
  if (!declared.empty() && declared != kernel) c.fail(cat("kernel_shape is not that of the weights, ", w.str()));
  const int64_t groups = group_count(c);
  if (x[1] != w[0] || x[1] % groups != 0)
    c.fail(cat("weights of shape ", w.str(), " in ", counted(groups, "group"), " do not fit ", x.str()));
  if (c.has_input(2) && c.input(2).shape != Shape{w[1] * groups})
    c.fail(cat("the bias has shape ", c.input(2).shape.str(), "; expected ", counted(w[1] * groups, "value")));
  const std::string auto_pad = c.attr_string("auto_pad", "NOTSET");
  TransposeShape s{window_base(c, x, kernel), x[0], groups, x[1] / groups, w[1]};
  const auto n = static_cast<size_t>(s.window.rank);
  const auto extra = window_attr(c, "output_padding", n, 0, 0);
  std::vector<int64_t> wished = c.attr_ints("output_shape");
  if (wished.size() == n + 2) wished.erase(wished.begin(), wished.begin() + 2);
  if (!wished.empty() && wished.size() != n) c.fail(cat("output_shape has ", counted(wished.size(), "value")));
  for (size_t i = 0; i < 3; ++i) {
    WindowDim& d = s.window.dim[i];
    if (i + n < 3)
      d.out = 1;
    else
      set_padding(c, d, auto_pad, extra[i + n - 3], wished.empty() ? -1 : wished[i + n - 3]);
  }
  return s;
}

}  // namespace inferkit
