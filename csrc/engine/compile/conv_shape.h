// The shape of a convolution, for the lowerings of every device.
#pragma once
#include "base/counted.h"
#include "engine/compile/window.h"

namespace inferkit {

struct ConvShape {
  Window window;
  int64_t batch, groups, channels, filters;  // channels and filters of one group

  int64_t window_elements() const { return channels * window.kernel_elements(); }  // the terms of each sum
  /// One pixel of the window, every pixel of the image, in its order.
  bool pointwise() const {
    bool all = window.kernel_elements() == 1 && !window.has_padding();
    for (const WindowDim& d : window.dim) all = all && d.stride == 1;
    return all;
  }
};

/// Of a node whose shape rule is infer_conv; throws where the inputs do not fit each other.
inline ConvShape conv_shape(const NodeContext& c) {
  const Shape &x = c.input(0).shape, &w = c.input(1).shape;
  if (w.rank() != x.rank() || w.rank() < 3) {
    c.fail(cat("expected [batch, channels, spatial...] and [filters, channels, kernel...], got ", x.str(), " and ",
               w.str()));
  }
  const std::vector<int64_t> kernel(w.begin() + 2, w.end());
  const auto declared = c.attr_ints("kernel_shape");
  if (!declared.empty() && declared != kernel) c.fail(cat("kernel_shape is not that of the weights, ", w.str()));
  const int64_t groups = group_count(c);
  if (w[0] % groups != 0 || x[1] != w[1] * groups) {
    c.fail(cat("weights of shape ", w.str(), " in ", counted(groups, "group"), " do not fit ", x.str()));
  }
  if (c.has_input(2) && c.input(2).shape != Shape{w[0]})
    c.fail(cat("the bias has shape ", c.input(2).shape.str(), "; expected ", counted(w[0], "value")));
  return {make_window(c, x, kernel, false), x[0], groups, w[1], w[0] / groups};
}

}  // namespace inferkit
