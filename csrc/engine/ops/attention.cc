// Attention of ONNX: three or four dimensions, grouped heads, masks, windows and caches.
#include "engine/ops/common/attention.h"

#include <cmath>

#include "engine/compile/op_registry.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/dispatch.h"

namespace inferkit {
namespace {

enum Input : size_t { kQ, kK, kV, kMask, kPastKey, kPastValue, kLengths };

struct Sizes {
  bool packed;  // [batch, rows, heads * size] rather than [batch, heads, rows, size]
  int64_t batch, heads, kv_heads, rows, fresh, past, keys, head_size, v_head_size;
  Shape scores() const { return {batch, heads, rows, keys}; }
};

Sizes read_sizes(const NodeContext& c) {
  const Shape &q = c.input(kQ).shape, &k = c.input(kK).shape, &v = c.input(kV).shape;
  if (q.rank() != k.rank() || q.rank() != v.rank() || (q.rank() != 3 && q.rank() != 4)) {
    c.fail(cat("expected three tensors of 3 or of 4 dimensions, got ", q.str(), ", ", k.str(), " and ", v.str()));
  }
  Sizes s{};
  s.packed = q.rank() == 3;
  s.batch = q[0];
  if (s.packed) {
    s.heads = c.attr_int("q_num_heads", 0);
    s.kv_heads = c.attr_int("kv_num_heads", 0);
    if (s.heads < 1 || s.kv_heads < 1) c.fail("inputs of 3 dimensions need q_num_heads and kv_num_heads");
    if (q[2] % s.heads != 0 || k[2] % s.kv_heads != 0 || v[2] % s.kv_heads != 0) {
      c.fail(cat(s.heads, " and ", s.kv_heads, " heads do not divide ", q.str(), ", ", k.str(), " and ", v.str()));
    }
    s.head_size = q[2] / s.heads;
    s.v_head_size = v[2] / s.kv_heads;
    if (k[2] / s.kv_heads != s.head_size) c.fail(cat("heads of ", q.str(), " and ", k.str(), " differ in size"));
  } else {
    s.heads = q[1];
    s.kv_heads = k[1];
    s.head_size = q[3];
    s.v_head_size = v[3];
    if (v[1] != s.kv_heads || k[3] != s.head_size) {
      c.fail(cat("heads of ", q.str(), ", ", k.str(), " and ", v.str(), " do not fit"));
    }
    const bool told = c.has_attr("q_num_heads") || c.has_attr("kv_num_heads");
    if (told && (c.attr_int("q_num_heads", s.heads) != s.heads || c.attr_int("kv_num_heads", s.kv_heads) != s.kv_heads))
      c.fail("q_num_heads and kv_num_heads contradict inputs of 4 dimensions");
  }
  if (s.kv_heads == 0 || s.heads % s.kv_heads != 0) {
    c.fail(cat(s.heads, " query heads cannot share ", s.kv_heads, " key heads"));
  }
  const size_t row = s.packed ? 1 : 2;
  s.rows = q[row];
  s.fresh = k[row];
  if (k[0] != s.batch || v[0] != s.batch || v[row] != s.fresh) {
    c.fail(cat("batch or length of ", q.str(), ", ", k.str(), " and ", v.str(), " differ"));
  }
  if (c.has_input(kPastKey)) {
    const Shape &pk = c.input(kPastKey).shape, &pv = c.input(kPastValue).shape;
    s.past = pk.rank() == 4 ? pk[2] : 0;
    if (pk != Shape{s.batch, s.kv_heads, s.past, s.head_size} ||
        pv != Shape{s.batch, s.kv_heads, s.past, s.v_head_size}) {
      c.fail(cat("past_key ", pk.str(), " and past_value ", pv.str(), " do not fit the keys ", k.str()));
    }
  }
  s.keys = s.past + s.fresh;
  return s;
}

/// Values of softmax_precision: TensorProto.DataType's.
constexpr int64_t kFloat = 1, kFloat16 = 10, kDouble = 11, kBFloat16 = 16;

/// What scores and weights are computed in: float, or double where the model or softmax_precision asks for it.
DType work_type(const NodeContext& c) {
  const DType type = compute_type(c.input(kQ).dtype);
  switch (c.attr_int("softmax_precision", 0)) {
    case 0:
    case kFloat:
      return type;
    case kDouble:
      return DType::kF64;
    case kFloat16:
      if (c.input(kQ).dtype == DType::kF16) return type;
      break;
    case kBFloat16:
      if (c.input(kQ).dtype == DType::kBF16) return type;
      break;
  }
  c.unsupported(cat("softmax_precision ", c.attr_int("softmax_precision", 0), " below that of the inputs"));
}

int64_t window(const NodeContext& c, std::string_view name) {
  const int64_t size = c.version() >= 25 ? c.attr_int(name, -1) : -1;
  if (size < -1) c.fail(cat(name, " is ", size));
  return std::min(size, int64_t{1} << 40);  // no sequence is longer, and sums with it are numbers
}

void infer_attention(InferContext& c) {
  if (const int64_t stage = c.attr_int("qk_matmul_output_mode", 0); stage < 0 || stage > 3) {
    c.fail(cat("qk_matmul_output_mode is ", stage));
  }
  if (c.attr_float("softcap", 0) < 0) c.fail("softcap is negative");
  window(c, "left_window_size");
  window(c, "right_window_size");
  constexpr int64_t kPrecisions[] = {0, kFloat, kFloat16, kDouble, kBFloat16};
  const int64_t precision = c.attr_int("softmax_precision", 0);
  if (std::find(std::begin(kPrecisions), std::end(kPrecisions), precision) == std::end(kPrecisions)) {
    c.unsupported(cat("softmax_precision ", precision));
  }
  if (c.has_input(kPastKey) != c.has_input(kPastValue)) c.fail("past_key and past_value belong together");
  if (c.has_input(kLengths) && c.has_input(kPastKey)) c.fail("nonpad_kv_seqlen and past_key exclude each other");
  require_type(c, kQ, kFloatTypes);
  for (const size_t i : {kK, kV, kPastKey, kPastValue}) {
    if (c.has_input(i) && c.knows(i) && c.input(i).dtype != c.input(kQ).dtype)
      c.unsupported("inputs of different types");
  }
  const Sizes s = read_sizes(c);
  if (c.has_input(kMask)) check_attention_mask(c, kMask, s.scores());
  if (c.has_input(kLengths)) {
    if (c.input(kLengths).dtype != DType::kI64 || c.input(kLengths).shape != Shape{s.batch}) {
      c.fail(cat("nonpad_kv_seqlen must be int64 of shape (", s.batch, ",), not ", c.input(kLengths).shape.str()));
    }
  }
  work_type(c);
  const DType type = c.input(kQ).dtype;
  c.set_output(
      0, type,
      s.packed ? Shape{s.batch, s.rows, s.heads * s.v_head_size} : Shape{s.batch, s.heads, s.rows, s.v_head_size});
  if (c.has_output(1)) c.set_output(1, type, {s.batch, s.kv_heads, s.keys, s.head_size});
  if (c.has_output(2)) c.set_output(2, type, {s.batch, s.kv_heads, s.keys, s.v_head_size});
  if (c.has_output(3)) c.set_output(3, type, s.scores());
}

struct Rows {
  Ref memory;
  HeadStrides strides;
  int64_t count;
};

/// Keys or values, the past ones before the new; they also go to output `present` where somebody reads it.
Rows gather_keys(LowerContext& c, const Sizes& s, size_t fresh, size_t past, size_t present, int64_t size) {
  const auto strides = [&](int64_t rows, bool packed) {
    return packed ? rows_first(s.kv_heads, rows, size) : heads_first(s.kv_heads, rows, size);
  };
  const DType type = c.input(fresh).dtype;
  const int64_t count = s.batch * s.kv_heads * s.keys * size;
  Ref target = c.has_output(present) ? c.out(present) : Ref{};
  const bool has_past = c.has_input(past) && s.past > 0;
  if (has_past && !target.valid()) target = c.scratch(static_cast<size_t>(count) * dtype_size(type));
  if (target.valid()) {
    const CacheRows rows{s.batch, s.kv_heads, s.past, s.fresh, size, strides(s.fresh, s.packed)};
    lower_extend_cache(c, target, has_past ? c.in(past) : Ref{}, c.in(fresh), rows, type);
    return {target, strides(s.keys, false), count};
  }
  return {c.in(fresh), strides(s.keys, s.packed), count};
}

template <bool kInBf16>
void lower_attention_node(LowerContext& c) {
  const Sizes s = read_sizes(c);
  const DType type = c.input(kQ).dtype, work = work_type(c);
  AttentionParams p;
  p.bf16 = kInBf16;
  p.batch = s.batch;
  p.heads = s.heads;
  p.kv_heads = s.kv_heads;
  p.rows = s.rows;
  p.keys = s.keys;
  p.head_size = s.head_size;
  p.v_head_size = s.v_head_size;
  p.q = s.packed ? rows_first(s.heads, s.rows, s.head_size) : heads_first(s.heads, s.rows, s.head_size);
  p.y = s.packed ? rows_first(s.heads, s.rows, s.v_head_size) : heads_first(s.heads, s.rows, s.v_head_size);
  const Rows k = gather_keys(c, s, kK, kPastKey, 1, s.head_size);
  const Rows v = gather_keys(c, s, kV, kPastValue, 2, s.v_head_size);
  p.k = k.strides;
  p.v = v.strides;
  p.scale = c.has_attr("scale") ? c.attr_float("scale", 1) : 1 / std::sqrt(static_cast<double>(s.head_size));
  p.softcap = c.attr_float("softcap", 0);
  p.offset = s.past;
  p.offset_from_lengths = c.has_input(kLengths);
  p.left = window(c, "left_window_size");
  p.right = window(c, "right_window_size");
  if (c.attr_int("is_causal", 0) != 0) p.right = 0;
  p.stage = static_cast<ScoreStage>(c.attr_int("qk_matmul_output_mode", 0));

  AttentionOperands o;
  o.q = converted(c, c.in(kQ), type, work, c.input(kQ).shape.elements());
  o.k = converted(c, k.memory, type, work, k.count);
  o.v = converted(c, v.memory, type, work, v.count);
  if (c.has_input(kMask)) o.bias = attention_bias(c, kMask, s.scores(), work, p.bias);
  if (c.has_input(kLengths)) o.lengths = c.in(kLengths);
  o.y = begin_output(c, 0, work);
  if (!o.y.valid()) o.y = c.scratch(static_cast<size_t>(c.output(0).shape.elements()) * dtype_size(work));
  o.scores = c.has_output(3) ? begin_output(c, 3, work) : Ref{};
  lower_attention(c, p, o, work);
  if (c.out(0).valid()) end_output(c, 0, o.y, work);
  end_output(c, 3, o.scores, work);
}

Cost bf16_cost(const NodeContext& c) {
  return work_type(c) == DType::kF32 ? Cost(0) : Cost::cannot("softmax_precision asks for more");
}

}  // namespace

void register_attention(OpRegistry& r) {
  r.add({.name = "Attention",
         .since = 23,
         .min_inputs = 3,
         .max_inputs = 7,
         .max_outputs = 4,
         .infer = infer_attention,
         .mixed_axes = behind_first_axis},
        {{.name = kOnlyLowering, .lower = lower_attention_node<false>},
         {.name = "bf16", .lower = lower_attention_node<true>, .cost = bf16_cost, .precision = Precision::kBf16}});
}

}  // namespace inferkit
