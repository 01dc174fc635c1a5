// Pad: constant, reflect, edge, wrap; negative pads cut off. What of the input stands in the output is copied in pieces
// that lie together; the edges follow where each position comes from.
#include <cstring>

#include "engine/compile/op_registry.h"
#include "engine/compile/pad_shape.h"
#include "engine/compile/strided.h"
#include "engine/ops/common/any_width.h"
#include "engine/ops/dispatch.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

Axes mixed_by_pad(const NodeContext& c, size_t i) {
  if (i != 0) return 0;
  const Pads pads = pads_of(c);
  Axes out = 0;
  for (size_t axis = 0; axis < pads.before.size(); ++axis) {
    if (pads.before[axis] != 0 || pads.after[axis] != 0) {
      out = static_cast<Axes>(out | one_axis(static_cast<int64_t>(axis)));
    }
  }
  return out;
}

void infer_pad(InferContext& c) {
  pad_mode(c);
  const Pads pads = pads_of(c);
  Shape out = c.input(0).shape;
  for (size_t i = 0; i < out.rank(); ++i) {
    int64_t d = 0;
    if (__builtin_add_overflow(out[i], pads.before[i], &d) || __builtin_add_overflow(d, pads.after[i], &d) || d < 0) {
      c.fail(cat("pads of ", pads.before[i], " and ", pads.after[i], " on a dimension of ", out[i]));
    }
    out[i] = d;
  }
  if (c.has_input(2) && c.version() >= 11) {
    require_same_type(c, 0, 2);
    if (c.input(2).shape.elements() != 1) c.fail("constant_value must be a scalar");
  }
  c.set_output(0, c.input(0).dtype, out);
}

/// One dimension, or neighbours that no pad touches as one. Of its input, `left` elements from `cut` on stand in the
/// output from `before` on.
struct PadDim {
  int64_t in = 1, out = 1, before = 0, cut = 0, left = 1;
  bool touched() const { return before != 0 || cut != 0 || left != in || out != in; }
  int64_t middle_first() const { return std::min(before, out); }
  int64_t middle_last() const { return std::min(before + left, out); }
};

struct PadParams {
  size_t rank = 0;
  std::array<PadDim, Shape::kMaxRank> dims;
  Strides in_strides{}, out_strides{};
  int64_t block = 1;  // elements below the last of `dims`, which lie together
  PadMode mode = PadMode::kConstant;
  uint64_t fill = 0;  // where there is no operand for it
};

template <class W>
struct Padder {
  const PadParams& p;
  W fill;
  WorkMeter& meter;

  static constexpr int64_t kLong = 1 << 20;  // elements: worth a look whether to go on
  static constexpr int64_t kShort = 64;      // not worth it
  static void copy(W* to, const W* from, int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(W);
    count > kLong ? copy_in_blocks(to, from, bytes) : static_cast<void>(std::memcpy(to, from, bytes));
  }

  /// Writes everything below dimension d.
  void write(size_t d, const W* in, W* out) const {
    const PadDim& dim = p.dims[d];
    const int64_t first = dim.middle_first(), last = dim.middle_last();
    if (d + 1 < p.rank) {
      for_blocks(meter, first, last, p.out_strides[d], [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          write(d + 1, in + (i - dim.before + dim.cut) * p.in_strides[d], out + i * p.out_strides[d]);
        }
      });
    } else if (last > first) {
      copy(out + first * p.block, in + (first - dim.before + dim.cut) * p.block, (last - first) * p.block);
    }
    edge(d, 0, first, out);
    edge(d, last, dim.out, out);
  }

  /// Positions [first, last) of dimension d, outside what is copied.
  void edge(size_t d, int64_t first, int64_t last, W* out) const {
    const int64_t stride = p.out_strides[d];
    if (p.mode == PadMode::kConstant) {
      const int64_t count = (last - first) * stride;
      count > kLong ? fill_in_blocks(out + first * stride, count, fill)
                    : std::fill(out + first * stride, out + last * stride, fill);
      return;
    }
    // What repeats stands in the output by now.
    const PadDim& dim = p.dims[d];
    const auto fill_from = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t source = dim.before + pad_source(p.mode, i - dim.before, dim.left);
        if (stride == 1) {
          out[i] = out[source];
        } else {
          copy(out + i * stride, out + source * stride, stride);
        }
      }
    };
    (last - first) * stride <= kShort ? fill_from(first, last)
                                      : static_cast<void>(for_blocks(meter, first, last, stride, fill_from));
  }
};

// Operands: x, value (may be missing), out.
template <class W>
void run_pad(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const PadParams*>(params);
  const W fill = io[1] ? *reinterpret_cast<const W*>(io[1]) : static_cast<W>(p.fill);
  WorkMeter meter;
  Padder<W>{p, fill, meter}.write(0, reinterpret_cast<const W*>(io[0]), reinterpret_cast<W*>(io[2]));
}

/// The attribute `value` of old opsets, as the bits of an element.
uint64_t value_bits(const NodeContext& c) {
  const float value = c.version() < 11 ? c.attr_float("value", 0) : 0;
  if (value == 0) return 0;
  return dispatch<kFloatTypes>(c.input(0).dtype, [&]<class T>() -> uint64_t {
    const T v = store<T>(static_cast<Compute<T>>(value));
    uint64_t bits = 0;
    std::memcpy(&bits, &v, sizeof(v));
    return bits;
  });
}

/// As measured: of rows, and of what they hold.
double pad_nanos(const PadParams& p, int64_t elements, size_t size) {
  const double count = static_cast<double>(elements);
  const double rows = p.rank > 1 ? count / static_cast<double>(p.out_strides[p.rank - 2]) : 1;
  return rows * (p.mode == PadMode::kConstant ? 6 : 15) + count * 0.025 * static_cast<double>(size);
}

void lower_pad(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const PadMode mode = pad_mode(c);
  const StepFn fn = dispatch_any_width(x.dtype, []<class W>() -> StepFn { return run_pad<W>; });
  const Shape& out = c.output(0).shape;
  if (x.shape == out) {
    const Pads pads = pads_of(c);
    if (std::all_of(pads.before.begin(), pads.before.end(), [](int64_t v) { return v == 0; })) return c.alias(0, 0);
  }
  const int64_t elements = out.elements();
  if (elements == 0) return;
  const Pads pads = pads_of(c);
  PadParams p;
  p.mode = mode;
  for (size_t i = 0; i < x.shape.rank(); ++i) {
    PadDim dim;
    dim.in = x.shape[i];
    dim.out = out[i];
    dim.before = std::max<int64_t>(pads.before[i], 0);
    // Negative pads cut first; the rest repeats what is left.
    dim.cut = std::max<int64_t>(-pads.before[i], 0);
    dim.left = dim.in - dim.cut - std::max<int64_t>(-pads.after[i], 0);
    if (dim.left <= 0 && mode != PadMode::kConstant) c.fail(cat("nothing to repeat along dimension ", i));
    dim.left = std::max<int64_t>(dim.left, 0);
    if (p.rank > 0 && !dim.touched() && !p.dims[p.rank - 1].touched()) {
      PadDim& whole = p.dims[p.rank - 1];
      whole.in = whole.out = whole.left = whole.in * dim.in;
    } else {
      p.dims[p.rank++] = dim;
    }
  }
  if (p.rank > 1 && !p.dims[p.rank - 1].touched()) p.block = p.dims[--p.rank].in;
  int64_t in_stride = p.block, out_stride = p.block;
  for (size_t d = p.rank; d-- > 0;) {
    p.in_strides[d] = in_stride;
    p.out_strides[d] = out_stride;
    in_stride *= p.dims[d].in;
    out_stride *= p.dims[d].out;
  }
  p.fill = value_bits(c);
  c.step(fn, p, {c.in(0), c.version() >= 11 ? c.in(2) : Ref{}, c.out(0)}, pad_nanos(p, elements, dtype_size(x.dtype)));
}

}  // namespace

void register_pad(OpRegistry& r) {
  r.add({.name = "Pad",
         .since = 2,
         .until = 10,
         .min_inputs = 1,
         .max_inputs = 1,
         .max_outputs = 1,
         .infer = infer_pad,
         .mixed_axes = mixed_by_pad},
        lower_pad);
  r.add({.name = "Pad",
         .since = 11,
         .until = 17,
         .min_inputs = 2,
         .max_inputs = 3,
         .max_outputs = 1,
         .infer = infer_pad,
         .mixed_axes = mixed_by_pad},
        lower_pad);
  r.add({.name = "Pad",
         .since = 18,
         .min_inputs = 2,
         .max_inputs = 4,
         .max_outputs = 1,
         .infer = infer_pad,
         .mixed_axes = mixed_by_pad},
        lower_pad);
}

}  // namespace inferkit
