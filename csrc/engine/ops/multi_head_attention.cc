// Attention, QAttention and MultiHeadAttention of ONNX Runtime. The projection of the first two is spelled out as a
// product; what is left of them is our own PackedAttention. Masks add mask_filter_value to what they hide, as ONNX
// Runtime does.
#include <cmath>

#include "base/counted.h"
#include "engine/compile/expand.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/attention.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

constexpr TypeSet kTypes = types(DType::kF32, DType::kF16);

enum class MaskKind : uint8_t { kNone, kEnds, kEndsAndStarts, kKeys, kRowsAndKeys };

/// What both operators come to. Strides are in the elements of the inputs they read.
struct HeadInputs {
  int64_t batch, heads, rows, fresh, past, head_size, v_head_size;
  HeadStrides q, k, v;
  size_t q_input, k_input, v_input;
  size_t mask, bias, past_k, past_v;  // inputs that may be left out
  int64_t past_v_base;
  size_t present_k, present_v;  // outputs
  int64_t present_v_base;

  int64_t keys() const { return past + fresh; }
  Shape scores() const { return {batch, heads, rows, keys()}; }
};

int64_t head_count(const NodeContext& c) {
  const int64_t heads = c.attr_int("num_heads", 0);
  if (heads < 1) c.fail(cat("num_heads is ", heads));
  return heads;
}

int64_t per_head(const NodeContext& c, int64_t size, int64_t heads) {
  if (size < 0 || size % heads != 0) c.fail(cat(counted(heads, "head"), " do not divide ", size));
  return size / heads;
}

// ---- PackedAttention: qkv [batch, rows, q + k + v], mask, past [2, batch, heads, past, size], bias ----------------

HeadInputs read_packed(const NodeContext& c) {
  const Shape& x = c.input(0).shape;
  HeadInputs h{};
  if (x.rank() != 3) c.fail(cat("expected [batch, rows, size], got ", x.str()));
  h.batch = x[0];
  h.heads = head_count(c);
  h.rows = h.fresh = x[1];
  std::vector<int64_t> sizes = c.attr_ints("qkv_hidden_sizes");
  if (sizes.empty()) sizes.assign(3, x[2] / 3);
  if (sizes.size() != 3 || sizes[0] != sizes[1] || sizes[0] + sizes[1] + sizes[2] != x[2]) {
    c.fail(cat("qkv_hidden_sizes do not fit ", counted(x[2], "column")));
  }
  h.head_size = per_head(c, sizes[0], h.heads);
  h.v_head_size = per_head(c, sizes[2], h.heads);
  h.q = rows_first(h.heads, h.rows, h.head_size, x[2]);
  h.k = h.q;
  h.k.base = sizes[0];
  h.v = rows_first(h.heads, h.rows, h.v_head_size, x[2]);
  h.v.base = 2 * sizes[0];
  h.mask = 1;
  h.past_k = h.past_v = 2;
  h.bias = 3;
  h.present_k = h.present_v = 1;
  if (c.has_input(2)) {
    const Shape& past = c.input(2).shape;
    h.past = past.rank() == 5 ? past[3] : 0;
    if (past != Shape{2, h.batch, h.heads, h.past, h.head_size} || h.head_size != h.v_head_size) {
      c.fail(cat("past has shape ", past.str()));
    }
  }
  if (c.has_output(1) && h.head_size != h.v_head_size) c.fail("present needs keys and values of one size");
  h.past_v_base = h.batch * h.heads * h.past * h.head_size;
  h.present_v_base = h.batch * h.heads * h.keys() * h.head_size;
  return h;
}

// ---- MultiHeadAttention: query, key, value, bias, mask, attention bias, past key, past value ------------------------

HeadInputs read_multi_head(const NodeContext& c) {
  const Shape& q = c.input(0).shape;
  HeadInputs h{};
  h.heads = head_count(c);
  h.batch = q.rank() > 0 ? q[0] : 0;
  h.rows = q.rank() > 1 ? q[1] : 0;
  h.k_input = h.v_input = 0;
  const auto packed = [&](const Shape& x, int64_t parts) {
    if (x.rank() != 5 || x[0] != h.batch || x[2] != h.heads || x[3] != parts) c.fail(cat("packed heads ", x.str()));
    if (c.has_input(3)) c.unsupported("a bias of packed inputs");
    return HeadStrides{x[1] * h.heads * parts * x[4], parts * x[4], h.heads * parts * x[4], 0};
  };
  if (q.rank() == 5) {
    if (c.has_input(1) || c.has_input(2)) c.fail("packed queries beside keys or values");
    h.q = h.k = h.v = packed(q, 3);
    h.fresh = h.rows;
    h.head_size = h.v_head_size = q[4];
    h.k.base = q[4];
    h.v.base = 2 * q[4];
  } else {
    if (q.rank() != 3) c.fail(cat("expected queries [batch, rows, size], got ", q.str()));
    h.head_size = per_head(c, q[2], h.heads);
    h.q = rows_first(h.heads, h.rows, h.head_size);
    const Shape& k = c.input(1).shape;
    h.k_input = 1;
    h.v_input = c.has_input(2) ? 2 : 1;
    const Shape& v = c.input(h.v_input).shape;
    if (k.rank() == 5) {
      if (c.has_input(2)) c.fail("packed keys beside values");
      h.k = h.v = packed(k, 2);
      h.fresh = k[1];
      h.v_head_size = k[4];
      h.v.base = k[4];
      if (k[4] != h.head_size) c.fail("queries and keys differ in size");
    } else if (!c.has_input(2)) {
      c.fail("keys without values");
    } else if (k.rank() == 4) {
      h.fresh = k[2];
      h.v_head_size = v.rank() == 4 ? v[3] : 0;
      if (k != Shape{h.batch, h.heads, h.fresh, h.head_size} || v != Shape{h.batch, h.heads, h.fresh, h.v_head_size}) {
        c.fail(cat("keys ", k.str(), " and values ", v.str(), " for queries ", q.str()));
      }
      if (c.has_input(3)) c.unsupported("a bias beside keys of 4 dimensions");
      h.k = heads_first(h.heads, h.fresh, h.head_size);
      h.v = heads_first(h.heads, h.fresh, h.v_head_size);
    } else {
      h.fresh = k.rank() == 3 ? k[1] : 0;
      if (k != Shape{h.batch, h.fresh, q[2]} || v.rank() != 3 || v[0] != h.batch || v[1] != h.fresh) {
        c.fail(cat("keys ", k.str(), " and values ", v.str(), " for queries ", q.str()));
      }
      h.v_head_size = per_head(c, v[2], h.heads);
      h.k = rows_first(h.heads, h.fresh, h.head_size);
      h.v = rows_first(h.heads, h.fresh, h.v_head_size);
    }
  }
  const int64_t columns = h.heads * (2 * h.head_size + h.v_head_size);
  if (c.has_input(3) && c.input(3).shape != Shape{columns}) c.fail(cat("a bias of shape ", c.input(3).shape.str()));
  h.mask = 4;
  h.bias = 5;
  h.past_k = 6;
  h.past_v = 7;
  h.present_k = 1;
  h.present_v = 2;
  if (c.has_input(6) != c.has_input(7)) c.fail("past_key and past_value belong together");
  if (c.has_input(6)) {
    const Shape &pk = c.input(6).shape, &pv = c.input(7).shape;
    h.past = pk.rank() == 4 ? pk[2] : 0;
    if (pk != Shape{h.batch, h.heads, h.past, h.head_size} || pv != Shape{h.batch, h.heads, h.past, h.v_head_size}) {
      c.fail(cat("past_key ", pk.str(), " and past_value ", pv.str(), " do not fit"));
    }
  }
  return h;
}

bool is_packed(const NodeContext& c) { return c.node().domain == kInternal; }
HeadInputs read_inputs(const NodeContext& c) { return is_packed(c) ? read_packed(c) : read_multi_head(c); }

// ---- Masks ----------------------------------------------------------------------------------------------------------

MaskKind mask_kind(const NodeContext& c, const HeadInputs& h) {
  if (!c.has_input(h.mask)) return MaskKind::kNone;
  if (c.input(h.mask).dtype != DType::kI32) c.wrong("the mask must be int32");
  const Shape& m = c.input(h.mask).shape;
  if (m == Shape{h.batch}) return MaskKind::kEnds;
  if (m == Shape{2 * h.batch}) return MaskKind::kEndsAndStarts;
  if (m == Shape{h.batch, h.keys()}) return MaskKind::kKeys;
  if (m == Shape{h.batch, h.rows, h.keys()}) return MaskKind::kRowsAndKeys;
  c.unsupported(cat("a mask of shape ", m.str(), " for scores of shape ", h.scores().str()));
}

struct MaskParams {
  int64_t batch, heads, rows, keys;  // of the bias that is written; heads and rows may be 1
  MaskKind kind;
  float hidden;
  int64_t add_batch, add_head, add_row;  // strides of the bias that is added
};

/// io: out, mask, attention bias (float) or null.
void mask_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const MaskParams*>(params);
  auto* out = reinterpret_cast<float*>(io[0]);
  const auto* mask = reinterpret_cast<const int32_t*>(io[1]);
  const auto* added = reinterpret_cast<const float*>(io[2]);
  WorkMeter meter;
  for (int64_t b = 0; b < p.batch; ++b) {
    const auto visible = [&](int64_t i, int64_t j) {
      switch (p.kind) {
        case MaskKind::kEnds:
          return j < mask[b];
        case MaskKind::kEndsAndStarts:
          return j < mask[b] && j >= mask[p.batch + b];
        case MaskKind::kKeys:
          return mask[b * p.keys + j] > 0;
        case MaskKind::kRowsAndKeys:
          return mask[(b * p.rows + i) * p.keys + j] > 0;
        case MaskKind::kNone:
          break;
      }
      return true;
    };
    for (int64_t h = 0; h < p.heads; ++h) {
      for (int64_t i = 0; i < p.rows && meter.go_on(2 * p.keys); ++i, out += p.keys) {
        const float* row = added ? added + b * p.add_batch + h * p.add_head + i * p.add_row : nullptr;
        for (int64_t j = 0; j < p.keys; ++j) {
          const float v = visible(i, j) ? 0.0f : p.hidden;
          out[j] = row ? v + row[j] : v;
        }
      }
    }
  }
}

bool is_causal(const NodeContext& c) { return c.attr_int("unidirectional", 0) != 0; }

/// The bias of the scores in float; invalid where there is none.
Ref score_bias(LowerContext& c, const HeadInputs& h, HeadStrides& strides) {
  const MaskKind kind = mask_kind(c, h);
  HeadStrides own;
  const Ref added = c.has_input(h.bias) ? attention_bias(c, h.bias, h.scores(), DType::kF32, own) : Ref{};
  if (kind == MaskKind::kNone) {
    strides = own;
    return added;
  }
  MaskParams p{};
  p.batch = h.batch;
  p.heads = own.head != 0 ? h.heads : 1;
  p.rows = own.row != 0 || kind == MaskKind::kRowsAndKeys ? h.rows : 1;
  p.keys = h.keys();
  p.kind = kind;
  p.hidden = c.attr_float("mask_filter_value", -10000.0f);
  p.add_batch = own.batch;
  p.add_head = own.head;
  p.add_row = own.row;
  strides = {p.heads * p.rows * p.keys, p.heads > 1 ? p.rows * p.keys : 0, p.rows > 1 ? p.keys : 0, 0};
  const int64_t count = p.batch * p.heads * p.rows * p.keys;
  const Ref out = c.scratch(static_cast<size_t>(count) * sizeof(float));
  c.step(mask_step, p, {out, c.in(h.mask), added}, static_cast<double>(count));
  return out;
}

// ---- Shape rule and lowering ----------------------------------------------------------------------------------------

void infer_heads(InferContext& c) {
  head_count(c);
  if (!is_packed(c)) {
    if (c.has_output(3)) c.unsupported("the scores as an output");
    if (c.has_input(8) || c.has_input(9)) c.unsupported("a shared buffer of past keys and values");
  }
  require_type(c, 0, kTypes);
  const HeadInputs h = read_inputs(c);
  for (size_t i = 1; i < c.input_count(); ++i) {
    if (c.has_input(i) && i != h.mask) require_same_type(c, 0, i);
  }
  if (c.has_input(h.bias)) check_attention_mask(c, h.bias, h.scores());
  mask_kind(c, h);
  const DType type = c.input(0).dtype;
  c.set_output(0, type, {h.batch, h.rows, h.heads * h.v_head_size});
  if (is_packed(c)) {
    if (c.has_output(1)) c.set_output(1, type, {2, h.batch, h.heads, h.keys(), h.head_size});
    return;
  }
  if (c.has_output(1)) c.set_output(1, type, {h.batch, h.heads, h.keys(), h.head_size});
  if (c.has_output(2)) c.set_output(2, type, {h.batch, h.heads, h.keys(), h.v_head_size});
}

struct AddBiasParams {
  int64_t rows, columns, first;  // of the bias
};
/// io: out, x, bias.
void add_bias_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const AddBiasParams*>(params);
  auto* out = reinterpret_cast<float*>(io[0]);
  const auto* x = reinterpret_cast<const float*>(io[1]);
  const auto* bias = reinterpret_cast<const float*>(io[2]) + p.first;
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(p.columns); ++r) {
    for (int64_t j = 0; j < p.columns; ++j) out[r * p.columns + j] = x[r * p.columns + j] + bias[j];
  }
}

template <bool kInBf16>
void lower_heads(LowerContext& c) {
  const HeadInputs h = read_inputs(c);
  constexpr DType kWork = DType::kF32;
  const DType type = c.input(0).dtype;
  const auto as_float = [&](size_t i) { return converted(c, c.in(i), type, kWork, c.input(i).shape.elements()); };
  const auto room = [&](int64_t count) { return c.scratch(static_cast<size_t>(count) * sizeof(float)); };

  AttentionOperands o;
  o.q = as_float(h.q_input);
  o.k = h.k_input == h.q_input ? o.q : as_float(h.k_input);
  o.v = h.v_input == h.k_input ? o.k : as_float(h.v_input);
  if (!is_packed(c) && c.has_input(3)) {
    const Ref bias = as_float(3);
    const auto shift = [&](Ref x, int64_t rows, int64_t size, int64_t first) {
      const AddBiasParams p{h.batch * rows, h.heads * size, first};
      const Ref out = room(p.rows * p.columns);
      c.step(add_bias_step, p, {out, x, bias}, multiplied(p.rows, p.columns) / 4);
      return out;
    };
    o.q = shift(o.q, h.rows, h.head_size, 0);
    o.k = shift(o.k, h.fresh, h.head_size, h.heads * h.head_size);
    o.v = shift(o.v, h.fresh, h.v_head_size, 2 * h.heads * h.head_size);
  }

  AttentionParams p;
  p.bf16 = kInBf16;
  p.batch = h.batch;
  p.heads = p.kv_heads = h.heads;
  p.rows = h.rows;
  p.keys = h.keys();
  p.head_size = h.head_size;
  p.v_head_size = h.v_head_size;
  p.q = h.q;
  p.k = h.k;
  p.v = h.v;
  p.y = rows_first(h.heads, h.rows, h.v_head_size);
  const float scale = c.attr_float("scale", 0);
  p.scale = scale == 0 ? 1 / std::sqrt(static_cast<double>(h.head_size)) : scale;
  p.offset = h.past;
  if (is_causal(c)) p.right = 0;

  // Keys and values behind the past ones, in float; and in the model's type for the outputs.
  const bool keeps_k = c.has_output(h.present_k) && c.out(h.present_k).valid();
  const bool keeps_v = c.has_output(h.present_v) && c.out(h.present_v).valid();
  if (h.past > 0 || keeps_k || keeps_v) {
    const CacheRows k{h.batch, h.heads, h.past, h.fresh, h.head_size, h.k, 0, 0};
    const CacheRows v{h.batch, h.heads, h.past, h.fresh, h.v_head_size, h.v, h.past_v_base, h.present_v_base};
    const int64_t k_count = h.batch * h.heads * p.keys * h.head_size;
    const int64_t v_count = h.batch * h.heads * p.keys * h.v_head_size;
    const bool one = h.present_k == h.present_v;
    const Ref keys = keeps_k ? begin_output(c, h.present_k, kWork) : room(one ? k_count + v_count : k_count);
    const Ref values = one ? keys : keeps_v ? begin_output(c, h.present_v, kWork) : room(v_count);
    const Ref past_k = h.past > 0 ? as_float(h.past_k) : Ref{};
    const Ref past_v = h.past > 0 ? (h.past_v == h.past_k ? past_k : as_float(h.past_v)) : Ref{};
    lower_extend_cache(c, keys, past_k, o.k, k, kWork);
    lower_extend_cache(c, values, past_v, o.v, v, kWork);
    if (keeps_k) end_output(c, h.present_k, keys, kWork);
    if (keeps_v && !one) end_output(c, h.present_v, values, kWork);
    o.k = keys;
    o.v = values;
    p.k = heads_first(h.heads, p.keys, h.head_size);
    p.v = heads_first(h.heads, p.keys, h.v_head_size);
    p.v.base = h.present_v_base;
  }
  o.bias = score_bias(c, h, p.bias);
  o.y = c.out(0).valid() ? begin_output(c, 0, kWork) : room(c.output(0).shape.elements());
  lower_attention(c, p, o, kWork);
  if (c.out(0).valid()) end_output(c, 0, o.y, kWork);
}

/// What follows the projection; kNoValue for what is left out.
void give_packed(Expansion& e, ValueId qkv, ValueId mask, ValueId past, ValueId bias) {
  if (e.attr("do_rotary", int64_t{0}) != 0) e.refuse("do_rotary");
  if (e.attr("past_present_share_buffer", int64_t{0}) != 0) e.refuse("a shared buffer of past and present");
  const auto out =
      e.add_internal(e.wants(1) ? 2 : 1, "PackedAttention", {qkv, mask, past, bias},
                     e.keep({"num_heads", "scale", "mask_filter_value", "unidirectional", "qkv_hidden_sizes"}));
  for (size_t i = 0; i < out.size(); ++i) {
    if (e.wants(i)) e.give(i, out[i]);
  }
}

/// Inputs: x, weights, bias, mask, past, attention bias, length of the past.
void expand_attention(Expansion& e) {
  if (e.has(6)) e.refuse("a shared buffer of past and present");
  ValueId qkv = e.add("MatMul", 13, {e.in(0), e.in(1)});
  if (e.has(2)) qkv = e.add("Add", 14, {qkv, e.in(2)});
  give_packed(e, qkv, e.in(3), e.in(4), e.in(5));
}

/// Inputs: x, weights, bias, x's scale, the weights' scale, mask, x's zero point, the weights' zero point, past.
void expand_quantized_attention(Expansion& e) {
  const ValueId sums = e.add("MatMulInteger", 10, {e.in(0), e.in(1), e.in(6), e.in(7)});
  const ValueId scale = e.add("Mul", 14, {e.in(3), e.in(4)});
  const ValueId qkv = e.add("Mul", 14, {e.add("Cast", 13, {sums}, {{"to", int64_t{1}}}), scale});
  give_packed(e, e.add("Add", 14, {qkv, e.in(2)}), e.in(5), e.in(8), kNoValue);
}

/// The first axis is the batch but in lengths of which each sequence has more than one: those of all come first, then
/// the places where they begin.
Axes mixed_by_heads(const NodeContext& c, size_t i) {
  const Shape &x = c.input(0).shape, &own = c.input(i).shape;
  return own.rank() == 1 && !x.empty() && own[0] != x[0] ? kAllAxes : behind_first_axis(c, i);
}

}  // namespace

void register_multi_head_attention(OpRegistry& r) {
  const std::vector<Lowering> ways = {{.name = kOnlyLowering, .lower = lower_heads<false>},
                                      {.name = "bf16", .lower = lower_heads<true>, .precision = Precision::kBf16}};
  r.add({.domain = kInternal,
         .name = "PackedAttention",
         .min_inputs = 1,
         .max_inputs = 4,
         .max_outputs = 2,
         .infer = infer_heads,
         .mixed_axes = mixed_by_heads},
        ways);
  r.add({.domain = kMicrosoft,
         .name = "MultiHeadAttention",
         .min_inputs = 1,
         .max_inputs = 10,
         .max_outputs = 4,
         .infer = infer_heads,
         .mixed_axes = mixed_by_heads},
        ways);
  OpSchema attention{.domain = kMicrosoft, .name = "Attention", .min_inputs = 2, .max_inputs = 7, .max_outputs = 2};
  add_expanded(r, attention, expand_attention);
  attention.name = "QAttention";
  attention.min_inputs = 5;
  attention.max_inputs = 9;
  add_expanded(r, attention, expand_quantized_attention);
}

}  // namespace inferkit
