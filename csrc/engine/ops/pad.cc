// Pad: constant, reflect, edge, wrap; negative pads cut off. Each dimension has a map from output to input positions,
// made when the plan is compiled; a run follows the maps and copies what lies together.
#include <cstring>

#include "engine/op_registry.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/strided.h"

namespace inferkit {
namespace {

struct Pads {
  std::vector<int64_t> before, after;  // one per dimension
};

Pads pads_of(const NodeContext& c) {
  const size_t rank = c.input(0).shape.rank();
  const bool inputs = c.version() >= 11;
  const std::vector<int64_t> pads = inputs ? c.const_ints(1) : c.attr_ints("pads");
  std::vector<int64_t> axes;
  if (c.version() >= 18 && c.has_input(3)) {
    axes = c.const_ints(3);
  } else {
    for (size_t i = 0; i < rank; ++i) axes.push_back(static_cast<int64_t>(i));
  }
  if (pads.size() != 2 * axes.size()) c.fail(cat(pads.size(), " pads for ", axes.size(), " dimensions"));
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

void infer_pad(InferContext& c) {
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

enum class Mode : uint8_t { kConstant, kReflect, kEdge, kWrap };

Mode mode_of(const NodeContext& c) {
  const std::string mode = c.attr_string("mode", "constant");
  if (mode == "constant") return Mode::kConstant;
  if (mode == "reflect") return Mode::kReflect;
  if (mode == "edge") return Mode::kEdge;
  if (mode == "wrap" && c.version() >= 19) return Mode::kWrap;
  c.unsupported("mode '" + mode + "'");
}

/// Where position i of a padded line of n elements comes from; i is counted from the line's first element, and may be
/// anywhere. -1 for the constant.
int64_t source(Mode mode, int64_t i, int64_t n) {
  if (i >= 0 && i < n) return i;
  const auto modulo = [](int64_t v, int64_t m) { return ((v % m) + m) % m; };
  switch (mode) {
    case Mode::kConstant:
      return -1;
    case Mode::kEdge:
      return i < 0 ? 0 : n - 1;
    case Mode::kWrap:
      return modulo(i, n);
    case Mode::kReflect: {
      if (n == 1) return 0;
      const int64_t m = modulo(i, 2 * (n - 1));
      return m < n ? m : 2 * (n - 1) - m;
    }
  }
  return -1;
}

struct PadParams {
  size_t rank = 0;
  Strides out_dims{}, in_strides{}, out_strides{};
  std::array<int64_t, Shape::kMaxRank> map_at{};  // where the map of each dimension starts
  int64_t middle_first = 0, middle_last = 0;      // of the last dimension: [first, last) is copied as one piece
  uint64_t fill = 0;                              // where there is no operand for it
};

template <class W>
struct Padder {
  const PadParams& p;
  const int64_t* maps;
  W fill;

  // Writes everything below dimension d.
  void write(size_t d, const W* in, W* out) const {
    const int64_t* map = maps + p.map_at[d];
    if (d + 1 == p.rank) {
      const auto edge = [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) out[i] = map[i] < 0 ? fill : in[map[i]];
      };
      edge(0, p.middle_first);
      if (p.middle_last > p.middle_first) {
        std::memcpy(out + p.middle_first, in + map[p.middle_first],
                    static_cast<size_t>(p.middle_last - p.middle_first) * sizeof(W));
      }
      edge(p.middle_last, p.out_dims[d]);
      return;
    }
    for (int64_t i = 0; i < p.out_dims[d]; ++i) {
      W* to = out + i * p.out_strides[d];
      if (map[i] < 0) {
        std::fill(to, to + p.out_strides[d], fill);
      } else {
        write(d + 1, in + map[i] * p.in_strides[d], to);
      }
    }
  }
};

// Operands: x, maps, value (may be missing), out.
template <class W>
void run_pad(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const PadParams*>(params);
  const W fill = io[2] ? *reinterpret_cast<const W*>(io[2]) : static_cast<W>(p.fill);
  const Padder<W> padder{p, reinterpret_cast<const int64_t*>(io[1]), fill};
  padder.write(0, reinterpret_cast<const W*>(io[0]), reinterpret_cast<W*>(io[3]));
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

void lower_pad(LowerContext& c) {
  const TensorFacts& x = c.input(0);
  const Mode mode = mode_of(c);
  const StepFn fn = dispatch_width(x.dtype, []<class W>() -> StepFn { return run_pad<W>; });
  if (!fn) c.unsupported("strings");
  const Shape& out = c.output(0).shape;
  if (x.shape == out) {
    const Pads pads = pads_of(c);
    if (std::all_of(pads.before.begin(), pads.before.end(), [](int64_t v) { return v == 0; })) return c.alias(0, 0);
  }
  const int64_t elements = out.elements();
  if (elements == 0) return;
  const Pads pads = pads_of(c);
  PadParams p;
  auto maps = std::make_shared<std::vector<int64_t>>();
  std::vector<std::vector<int64_t>> per_dim;
  std::vector<int64_t> in_dims;
  for (size_t i = 0; i < x.shape.rank(); ++i) {
    const int64_t n = x.shape[i];
    if (!per_dim.empty() && pads.before[i] == 0 && pads.after[i] == 0) {
      // An untouched dimension belongs to the one before: each position becomes n that lie together.
      std::vector<int64_t> wider;
      for (int64_t from : per_dim.back()) {
        for (int64_t k = 0; k < n; ++k) wider.push_back(from < 0 ? -1 : from * n + k);
      }
      per_dim.back() = std::move(wider);
      in_dims.back() *= n;
      continue;
    }
    // Negative pads cut first; the rest repeats what is left.
    const int64_t cut = std::max<int64_t>(-pads.before[i], 0), left = n - cut - std::max<int64_t>(-pads.after[i], 0);
    if (left <= 0 && mode != Mode::kConstant) c.fail(cat("nothing to repeat along dimension ", i));
    std::vector<int64_t> map;
    for (int64_t k = 0; k < out[i]; ++k) {
      const int64_t from = source(mode, k - std::max<int64_t>(pads.before[i], 0), std::max<int64_t>(left, 0));
      map.push_back(from < 0 ? -1 : from + cut);
    }
    per_dim.push_back(std::move(map));
    in_dims.push_back(n);
  }
  p.rank = per_dim.size();
  int64_t in_stride = 1, out_stride = 1;
  for (size_t d = p.rank; d-- > 0;) {
    p.out_dims[d] = static_cast<int64_t>(per_dim[d].size());
    p.in_strides[d] = in_stride;
    p.out_strides[d] = out_stride;
    in_stride *= in_dims[d];
    out_stride *= p.out_dims[d];
  }
  // The longest run of adjacent sources in the last dimension.
  const std::vector<int64_t>& last = per_dim.back();
  for (size_t first = 0; first < last.size();) {
    size_t end = first + 1;
    while (last[first] >= 0 && end < last.size() && last[end] == last[end - 1] + 1) ++end;
    const auto length = static_cast<int64_t>(end - first);
    if (last[first] >= 0 && length > p.middle_last - p.middle_first) {
      p.middle_first = static_cast<int64_t>(first);
      p.middle_last = static_cast<int64_t>(end);
    }
    first = end;
  }
  for (size_t d = 0; d < p.rank; ++d) {
    p.map_at[d] = static_cast<int64_t>(maps->size());
    maps->insert(maps->end(), per_dim[d].begin(), per_dim[d].end());
  }
  p.fill = value_bits(c);
  const Ref table = c.constant(maps->data(), maps);
  c.step(fn, p, {c.in(0), table, c.version() >= 11 ? c.in(2) : Ref{}, c.out(0)}, static_cast<double>(elements) * 0.5);
}

}  // namespace

void register_pad(OpRegistry& r) {
  r.add(
      {.name = "Pad", .since = 2, .until = 10, .min_inputs = 1, .max_inputs = 1, .max_outputs = 1, .infer = infer_pad},
      lower_pad);
  r.add(
      {.name = "Pad", .since = 11, .until = 17, .min_inputs = 2, .max_inputs = 3, .max_outputs = 1, .infer = infer_pad},
      lower_pad);
  r.add({.name = "Pad", .since = 18, .min_inputs = 2, .max_inputs = 4, .max_outputs = 1, .infer = infer_pad},
        lower_pad);
}

}  // namespace inferkit
