// A sliding window over up to three spatial dimensions: what Conv, ConvTranspose and pooling share. Always three
// dimensions, so that one loop nest serves all: missing ones come first and have size 1.
#pragma once
#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "base/counted.h"
#include "engine/compile/lower.h"

namespace inferkit {

struct WindowDim {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, pad_begin = 0, pad_end = 0;

  /// The taps [first, last) of output `o` that fall inside [0, size); `start` is where tap 0 falls.
  struct Taps {
    int64_t start, first, last;
    int64_t count() const { return last - first; }
  };
  Taps taps(int64_t o) const { return taps_within(o, in); }
  /// The same with the end padding taken for part of the input.
  Taps taps_with_padding(int64_t o) const {
    Taps t = taps_within(o, in + pad_end);
    t.first = 0;
    return t;
  }

 private:
  Taps taps_within(int64_t o, int64_t size) const {
    const int64_t start = o * stride - pad_begin;
    const int64_t first = start < 0 ? std::min(kernel, (-start + dilation - 1) / dilation) : 0;
    const int64_t last = size > start ? std::min(kernel, (size - start + dilation - 1) / dilation) : 0;
    return {start, first, std::max(first, last)};
  }
};

struct Window {
  std::array<WindowDim, 3> dim;
  int32_t rank = 0;  // of the spatial dimensions that the model has

  int64_t in_elements() const { return dim[0].in * dim[1].in * dim[2].in; }
  int64_t out_elements() const { return dim[0].out * dim[1].out * dim[2].out; }
  int64_t kernel_elements() const { return dim[0].kernel * dim[1].kernel * dim[2].kernel; }
  bool has_padding() const {
    return std::any_of(dim.begin(), dim.end(), [](const WindowDim& d) { return d.pad_begin || d.pad_end; });
  }
};

constexpr int64_t kMostOfWindow = int64_t{1} << 31;  // the product of two is a number

inline void check_of_window(const NodeContext& c, std::string_view name, int64_t v, int64_t least) {
  if (v < least || v > kMostOfWindow) c.fail(cat(name, " holds ", v, "; expected ", least, " to ", kMostOfWindow));
}

/// A list attribute with one value per spatial dimension (or `count` values), `fallback` where absent.
inline std::vector<int64_t> window_attr(const NodeContext& c, std::string_view name, size_t count, int64_t fallback,
                                        int64_t least) {
  std::vector<int64_t> v = c.attr_ints(name);
  if (v.empty()) v.assign(count, fallback);
  if (v.size() != count) c.fail(cat(name, " has ", counted(v.size(), "value"), "; expected ", count));
  for (int64_t x : v) check_of_window(c, name, x, least);
  return v;
}

/// The attribute `group`.
inline int64_t group_count(const NodeContext& c) {
  constexpr int64_t kMost = 1 << 20;  // times a dimension, that is a number
  const int64_t groups = c.attr_int("group", 1);
  if (groups < 1 || groups > kMost) c.fail(cat(counted(groups, "group"), "; expected 1 to ", kMost));
  return groups;
}

/// What the attributes of a node with a window say that no input makes right: first in its shape rule.
inline void check_window_attributes(const NodeContext& c) {
  group_count(c);
  const std::string auto_pad = c.attr_string("auto_pad", "NOTSET");
  constexpr std::string_view kKnown[] = {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", ""};
  if (std::find(std::begin(kKnown), std::end(kKnown), auto_pad) == std::end(kKnown)) {
    c.unsupported("auto_pad " + auto_pad);
  }
  for (const auto& [name, least] : {std::pair{"kernel_shape", 1}, {"strides", 1}, {"dilations", 1}, {"pads", 0}}) {
    const std::vector<int64_t> values = c.attr_ints(name);
    for (int64_t v : values) check_of_window(c, name, v, least);
  }
}

/// The window's sizes but not its output and, for auto_pad, not its padding. `x` is [N, C, spatial...].
inline Window window_base(const NodeContext& c, const Shape& x, const std::vector<int64_t>& kernel) {
  if (x.rank() < 3) c.fail(cat("expected [batch, channels, spatial...], got ", x.str()));
  const size_t n = x.rank() - 2;
  if (n > 3) c.unsupported(cat(n, " spatial dimensions"));
  if (kernel.size() != n) c.fail(cat("the kernel has ", counted(kernel.size(), "dimension"), ", the input ", x.str()));
  const auto strides = window_attr(c, "strides", n, 1, 1), dilations = window_attr(c, "dilations", n, 1, 1);
  const auto pads = window_attr(c, "pads", 2 * n, 0, 0);
  Window w;
  w.rank = static_cast<int32_t>(n);
  for (size_t i = 0; i < n; ++i) {
    WindowDim& d = w.dim[3 - n + i];
    if (kernel[i] < 1) c.fail("the kernel is empty");
    if (kernel[i] > kMostOfWindow)
      c.fail(cat("a kernel of ", kernel[i], " is too large; expected at most ", kMostOfWindow));
    d = {x[2 + i], 0, kernel[i], strides[i], dilations[i], pads[i], pads[n + i]};
  }
  return w;
}

/// As Conv and the pooling operators define it: attributes strides, dilations, pads, auto_pad.
inline Window make_window(const NodeContext& c, const Shape& x, const std::vector<int64_t>& kernel, bool ceil_mode) {
  Window w = window_base(c, x, kernel);
  const std::string auto_pad = c.attr_string("auto_pad", "NOTSET");
  const bool same = auto_pad == "SAME_UPPER" || auto_pad == "SAME_LOWER";
  for (size_t i = 3 - static_cast<size_t>(w.rank); i < 3; ++i) {
    WindowDim& d = w.dim[i];
    const int64_t reach = (d.kernel - 1) * d.dilation + 1;
    if (same) {
      d.out = (d.in + d.stride - 1) / d.stride;
      const int64_t pad = std::max<int64_t>(0, (d.out - 1) * d.stride + reach - d.in);
      d.pad_begin = auto_pad == "SAME_UPPER" ? pad / 2 : (pad + 1) / 2;
      d.pad_end = pad - d.pad_begin;
      continue;
    }
    if (auto_pad == "VALID") d.pad_begin = d.pad_end = 0;
    const int64_t room = d.in + d.pad_begin + d.pad_end - reach;
    if (room < 0) c.fail(cat("the window of ", reach, " does not fit into ", x.str(), " with its padding"));
    d.out = room / d.stride + 1;
    // A window that would start in the end padding is dropped.
    if (ceil_mode && room % d.stride != 0 && d.out * d.stride < d.in + d.pad_begin) ++d.out;
  }
  return w;
}

/// Of MaxPool and its kin.
inline Window pool_window(const NodeContext& c) {
  return make_window(c, c.input(0).shape, c.attr_ints("kernel_shape"), c.attr_int("ceil_mode", 0) != 0);
}

/// Where each tap of a window adds to the pixels that it falls on (ConvTranspose, Col2Im): how many taps reach a pixel
/// at most, and how many taps lie from one of those to the next. A stride lets fewer reach each.
struct Reaching {
  int64_t terms = 1, apart = 1;
};
inline Reaching reaching_taps(const Window& w) {
  Reaching out;
  for (const WindowDim& d : w.dim) {
    const int64_t step = std::min(d.kernel, d.stride / std::gcd(d.stride, d.dilation));
    out.terms *= (d.kernel + step - 1) / step;
    out.apart *= step;
  }
  return out;
}

/// OpSchema::mixed_axes of a window over `x`: all dimensions but those in which it is 1 long and goes over all
/// elements, and over nothing else. A kernel without sizes is as long as they are.
inline Axes window_axes(const NodeContext& c, const Shape& x, const std::vector<int64_t>& kernel) {
  const std::vector<int64_t> strides = c.attr_ints("strides"), pads = c.attr_ints("pads"),
                             added = c.attr_ints("output_padding");
  const bool sized = !c.attr_ints("output_shape").empty();
  const auto is = [](const std::vector<int64_t>& values, size_t i, int64_t value) {
    return i >= values.size() || values[i] == value;
  };
  const size_t n = std::max<size_t>(x.rank(), 2) - 2;
  Axes out = 0;
  for (size_t i = 0; i < n; ++i) {
    const bool keeps = i < kernel.size() && kernel[i] == 1 && is(strides, i, 1) && is(pads, i, 0) &&
                       is(pads, n + i, 0) && is(added, i, 0) && !sized;
    if (!keeps) out = static_cast<Axes>(out | one_axis(static_cast<int64_t>(2 + i)));
  }
  return out;
}

/// The same of a convolution whose weights are input `w`; of these, the window itself.
template <size_t w>
Axes conv_axes(const NodeContext& c, size_t i) {
  if (i == w) return static_cast<Axes>(~0b11u);
  if (i != 0) return 0;
  const Shape& weights = c.input(w).shape;
  return window_axes(c, c.input(0).shape,
                     {weights.begin() + std::min<int64_t>(2, static_cast<int64_t>(weights.rank())), weights.end()});
}

/// [batch, channels, spatial outputs...].
inline Shape window_output(const Window& w, int64_t batch, int64_t channels) {
  Shape out{batch, channels};
  for (size_t i = 3 - static_cast<size_t>(w.rank); i < 3; ++i) out.push_back(w.dim[i].out);
  return out;
}

}  // namespace inferkit
