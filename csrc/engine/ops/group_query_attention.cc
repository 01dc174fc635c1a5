// GroupQueryAttention of ONNX Runtime, which its tools build decoders of: causal attention whose query heads share the
// heads of keys and values, with rotary embeddings, a local window and a cache. `seqlens_k` has the length of each
// sequence, less one; the last rows of it are those that come in, the others are in the cache, which is a tensor of the
// longest sequence's size or larger, filled from its front. What lies behind a sequence's end is zero in the new cache.
// The meaning of a window was taken from ONNX Runtime 1.32: a row sees that many keys, its own included. Positions that
// are given are those of each row, also in a prompt, where ONNX Runtime goes on from the first of the first sequence.
#include <cmath>

#include "base/counted.h"
#include "engine/compile/op_registry.h"
#include "engine/ops/common/attention.h"
#include "engine/ops/common/attention_cache.h"
#include "engine/ops/common/convert.h"
#include "engine/ops/common/copy_rows.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/indices.h"
#include "graph/passes/pattern.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

enum Input : size_t {
  kQ,
  kK,
  kV,
  kPastKey,
  kPastValue,
  kLengths,
  kTotal,
  kCos,
  kSin,
  kPositions,
  kBias,
  kSink,
};

constexpr TypeSet kTypes = types(DType::kF32, DType::kF16, DType::kBF16);
constexpr DType kWork = DType::kF32;

/// Of the keys and values in the cache: the model's, or that which a widened model had.
DType cache_type(const NodeContext& c) {
  switch (c.attr_int(kCacheType, 0)) {
    case 10:
      return DType::kF16;
    case 16:
      return DType::kBF16;
    default:
      return c.input(kQ).dtype;
  }
}

struct Sizes {
  bool packed;  // query, key and value in one tensor
  int64_t batch, heads, kv_heads, rows, size;
  int64_t past, total, present;  // rows of the cache before, of the longest sequence, of the cache afterwards
  int64_t half;                  // the first 2 * half elements of a head turn; 0 for none
  /// All that there is comes in: positions begin at 0, and what the cache holds does not count.
  bool is_prompt() const { return rows == total; }
  Shape scores() const { return {batch, heads, rows, total}; }
};

Sizes read_sizes(const NodeContext& c) {
  Sizes s{};
  s.heads = c.attr_int("num_heads", 0);
  s.kv_heads = c.attr_int("kv_num_heads", 0);
  if (s.heads < 1 || s.kv_heads < 1 || s.heads % s.kv_heads != 0) {
    c.fail(cat(s.heads, " query heads cannot share ", s.kv_heads, " key heads"));
  }
  const Shape& q = c.input(kQ).shape;
  if (q.rank() != 3) c.fail(cat("expected a query of 3 dimensions, got ", q.str()));
  s.packed = !c.has_input(kK);
  if (s.packed == c.has_input(kV)) c.fail("key and value belong together");
  s.batch = q[0];
  s.rows = q[1];
  if (s.rows < 1) c.fail(cat("no rows come in: the query has shape ", q.str()));
  const int64_t parts = s.packed ? s.heads + 2 * s.kv_heads : s.heads;
  if (q[2] == 0 || q[2] % parts != 0) c.fail(cat(counted(parts, "head"), " do not divide a query of ", q.str()));
  s.size = q[2] / parts;
  if (!s.packed) {
    const Shape expected{s.batch, s.rows, s.kv_heads * s.size};
    for (const size_t i : {kK, kV}) {
      if (c.input(i).shape != expected) {
        c.fail(cat("expected keys and values of shape ", expected.str(), ", got ", c.input(i).shape.str()));
      }
    }
  }
  if (c.has_input(kPastKey)) {
    const Shape &key = c.input(kPastKey).shape, &value = c.input(kPastValue).shape;
    s.past = key.rank() == 4 ? key[2] : 0;
    if (key != Shape{s.batch, s.kv_heads, s.past, s.size} || value != key) {
      c.fail(cat("past_key ", key.str(), " and past_value ", value.str(), " do not fit the query ", q.str()));
    }
  }
  if (c.input(kLengths).shape.elements() != s.batch) {
    c.fail(cat("seqlens_k of shape ", c.input(kLengths).shape.str(), " for ", counted(s.batch, "sequence")));
  }
  const std::vector<int64_t> total = c.const_ints(kTotal);
  if (total.size() != 1) c.fail(cat("total_sequence_length has ", counted(total.size(), "element")));
  s.total = total[0];
  if (s.total < s.rows)
    c.fail(cat("total_sequence_length is ", s.total, ", and the query has ", counted(s.rows, "row")));
  s.present = std::max(s.total, s.past);
  if (c.attr_int("do_rotary", 0) != 0) {
    const Shape &cos = c.input(kCos).shape, &sin = c.input(kSin).shape;
    if (cos.rank() != 2 || cos != sin || cos[1] < 1 || 2 * cos[1] > s.size) {
      c.fail(cat("tables of shape ", cos.str(), " and ", sin.str(), " for heads of ", s.size));
    }
    s.half = cos[1];
    if (c.has_input(kPositions)) {
      if (c.input(kPositions).shape != Shape{s.batch, s.rows}) {
        c.fail(cat("position_ids of shape ", c.input(kPositions).shape.str(), " for ", counted(s.batch, "sequence"),
                   " of ", s.rows));
      }
    } else if (cos[0] < s.total) {
      c.fail(cat("tables of ", counted(cos[0], "position"), " for sequences of ", s.total));
    }
  }
  return s;
}

void infer_group_query(InferContext& c) {
  if (c.attr_int("qk_output", 0) != 0 || c.has_output(3)) c.unsupported("the scores as an output");
  for (const char* name : {"k_quant_type", "v_quant_type"}) {
    if (const std::string type = c.attr_string(name, "NONE"); type != "NONE") c.unsupported(cat(name, " ", type));
  }
  if (c.attr_float("softcap", 0) < 0) c.fail("softcap is negative");
  if (c.attr_int("do_rotary", 0) != 0 && !(c.has_input(kCos) && c.has_input(kSin))) {
    c.fail("do_rotary needs cos_cache and sin_cache");
  }
  if (c.has_input(kPastKey) != c.has_input(kPastValue)) c.fail("past_key and past_value belong together");
  if (!c.has_input(kLengths) || !c.has_input(kTotal)) c.fail("seqlens_k and total_sequence_length are missing");
  require_type(c, kQ, kTypes);
  for (const size_t i : {kK, kV, kCos, kSin}) {
    if (c.has_input(i)) require_same_type(c, kQ, i);
  }
  for (const size_t i : {kPastKey, kPastValue}) {
    if (!c.has_input(i)) continue;
    if (c.has_attr(kCacheType)) {
      require_type(c, i, types(cache_type(c)));
    } else {
      require_same_type(c, kQ, i);
    }
  }
  if (c.knows(kLengths) && c.input(kLengths).dtype != DType::kI32) c.wrong("seqlens_k must be int32");
  if (c.has_input(kPositions) && c.knows(kPositions) && c.input(kPositions).dtype != DType::kI64) {
    c.wrong("position_ids must be int64");
  }
  const Sizes s = read_sizes(c);
  if (c.has_input(kSink)) {
    require_same_type(c, kQ, kSink);
    if (c.input(kSink).shape != Shape{s.heads}) {
      c.fail(cat("a head_sink of shape ", c.input(kSink).shape.str(), " for ", counted(s.heads, "head")));
    }
  }
  if (c.has_input(kBias)) check_attention_mask(c, kBias, s.scores());
  const DType type = c.input(kQ).dtype;
  c.set_output(0, type, {s.batch, s.rows, s.heads * s.size});
  for (const size_t i : {1, 2}) {
    if (c.has_output(i)) c.set_output(i, cache_type(c), {s.batch, s.kv_heads, s.present, s.size});
  }
}

struct LengthsParams {
  int64_t batch, rows, total, past;
  bool prompt;
};

/// io: the lengths, seqlens_k. Each is read once, and all that follows goes by what was found here.
void lengths_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const LengthsParams*>(params);
  auto* out = reinterpret_cast<int64_t*>(io[0]);
  const auto* given = reinterpret_cast<const int32_t*>(io[1]);
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t length = int64_t{given[b]} + 1, before = p.prompt ? 0 : length - p.rows;
    if (length < 1 || length > p.total || before < 0 || before > p.past) {
      throw Error(ErrorCode::kInference,
                  cat("seqlens_k[", b, "] is ", length - 1, ", which does not fit ", p.rows, " new rows, a cache of ",
                      p.past, " and a total_sequence_length of ", p.total));
    }
    out[b] = length;
  }
}

/// How many rows of a sequence were there before.
int64_t rows_before(const std::byte* lengths, int64_t b, int64_t rows, bool prompt) {
  return prompt ? 0 : reinterpret_cast<const int64_t*>(lengths)[b] - rows;
}

struct RotateParams {
  int64_t batch, heads, rows, size, half;
  HeadStrides x, y;
  int64_t table_rows;
  bool interleaved, prompt;
};

/// io: y, x, cos, sin, lengths, positions.
void rotate_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const RotateParams*>(params);
  const int64_t pair = p.interleaved ? 1 : p.half, stride = p.interleaved ? 2 : 1;
  WorkMeter meter;
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t before = rows_before(io[4], b, p.rows, p.prompt);
    for (int64_t i = 0; i < p.rows && meter.go_on(2 * p.heads * p.half); ++i) {
      const int64_t line = io[5] ? index_at<int64_t>(io[5], b * p.rows + i, p.table_rows) : before + i;
      const float* cos = reinterpret_cast<const float*>(io[2]) + line * p.half;
      const float* sin = reinterpret_cast<const float*>(io[3]) + line * p.half;
      for (int64_t h = 0; h < p.heads; ++h) {
        const auto* x = reinterpret_cast<const float*>(io[1]) + p.x.base + b * p.x.batch + h * p.x.head + i * p.x.row;
        auto* y = reinterpret_cast<float*>(io[0]) + b * p.y.batch + h * p.y.head + i * p.y.row;
        for (int64_t j = 0; j < p.half; ++j) {
          const float real = x[j * stride], imaginary = x[j * stride + pair];
          y[j * stride] = cos[j] * real - sin[j] * imaginary;
          y[j * stride + pair] = sin[j] * real + cos[j] * imaginary;
        }
        std::copy(x + 2 * p.half, x + p.size, y + 2 * p.half);
      }
    }
  }
}

struct AppendParams {
  int64_t batch, heads, past, rows, present, row;  // of the cache before, new, of the cache afterwards; bytes of a row
  HeadStrides fresh;                               // in bytes
  bool prompt;
};

/// io: out, past, fresh, lengths.
void append_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const AppendParams*>(params);
  for (int64_t b = 0; b < p.batch; ++b) {
    const int64_t before = rows_before(io[3], b, p.rows, p.prompt);
    for (int64_t h = 0; h < p.heads; ++h) {
      std::byte* out = io[0] + (b * p.heads + h) * p.present * p.row;
      if (before > 0) {
        const int64_t bytes = before * p.row;
        copy_rows(out, bytes, io[1] + (b * p.heads + h) * p.past * p.row, bytes, bytes, 1);
      }
      const std::byte* fresh = io[2] + p.fresh.base + b * p.fresh.batch + h * p.fresh.head;
      copy_rows(out + before * p.row, p.row, fresh, p.fresh.row, p.row, p.rows);
      std::fill(out + (before + p.rows) * p.row, out + p.present * p.row, std::byte{0});
    }
  }
}

/// Where a tensor of a query, keys or values lies: memory and strides in elements.
struct Rows {
  Ref memory;
  HeadStrides strides;
  DType dtype;
  int64_t elements;
};

class Lowering {
 public:
  Lowering(LowerContext& context, bool in_bf16)
      : c(context), s(read_sizes(context)), type(context.input(kQ).dtype), cache(cache_type(context)), bf16(in_bf16) {}

  void run() {
    if (s.batch == 0) return;
    lengths = c.scratch(static_cast<size_t>(s.batch) * sizeof(int64_t));
    const LengthsParams p{s.batch, s.rows, s.total, s.past, s.is_prompt()};
    c.step(lengths_step, p, {lengths, c.in(kLengths)}, static_cast<double>(s.batch));
    if (s.half > 0) {
      const int64_t count = c.input(kCos).shape.elements();
      cos = converted(c, c.in(kCos), type, kWork, count);
      sin = converted(c, c.in(kSin), type, kWork, count);
    }
    const Rows q = turned(given(kQ, 0, s.heads), s.heads);
    const Rows k = turned(given(kK, s.heads, s.kv_heads), s.kv_heads);
    const Rows v = given(kV, s.heads + s.kv_heads, s.kv_heads);
    AttentionParams heads = params(q);
    if (reads_cache_in_chunks(heads) && c.has_output(0) && c.out(0).valid()) return step_of_decoder(heads, q, k, v);
    attend(heads, q, cached(k, kPastKey, 1), cached(v, kPastValue, 2));
  }

 private:
  Rows given(size_t input, int64_t first_head, int64_t heads) {
    if (!s.packed) return {c.in(input), rows_first(heads, s.rows, s.size), type, elements(input)};
    HeadStrides strides = rows_first(heads, s.rows, s.size, (s.heads + 2 * s.kv_heads) * s.size);
    strides.base = first_head * s.size;
    return {c.in(kQ), strides, type, elements(input)};
  }
  int64_t elements(size_t input) const { return c.input(s.packed ? size_t{kQ} : input).shape.elements(); }

  /// As float, turned by the angles of its positions.
  Rows turned(const Rows& x, int64_t heads) {
    if (s.half == 0) return x;
    const Ref in = converted(c, x.memory, type, kWork, x.elements);
    const int64_t count = s.batch * s.rows * heads * s.size;
    const Rows out{c.scratch(static_cast<size_t>(count) * sizeof(float)), rows_first(heads, s.rows, s.size), kWork,
                   count};
    const RotateParams p{s.batch,
                         heads,
                         s.rows,
                         s.size,
                         s.half,
                         x.strides,
                         out.strides,
                         c.input(kCos).shape[0],
                         c.attr_int("rotary_interleaved", 0) != 0,
                         s.is_prompt()};
    c.step(rotate_step, p, {out.memory, in, cos, sin, lengths, c.has_input(kPositions) ? c.in(kPositions) : Ref{}},
           static_cast<double>(count));
    return out;
  }

  /// Memory of the cache afterwards.
  Ref present(size_t output) {
    if (const Ref out = c.has_output(output) ? c.out(output) : Ref{}; out.valid()) return out;
    return c.scratch(static_cast<size_t>(present_elements()) * dtype_size(cache));
  }
  int64_t present_elements() const { return s.batch * s.kv_heads * s.present * s.size; }
  /// New rows in the type of the cache.
  Ref in_cache_type(const Rows& fresh) { return converted(c, fresh.memory, fresh.dtype, cache, fresh.elements); }
  Ref given_past(size_t input) { return c.has_input(input) ? c.in(input) : Ref{}; }

  /// The cache with the new rows, in its own type.
  Rows cached(const Rows& fresh, size_t past, size_t output) {
    const auto bytes = static_cast<int64_t>(dtype_size(cache));
    const Ref out = present(output), from = in_cache_type(fresh);
    const HeadStrides& f = fresh.strides;
    const AppendParams p{s.batch,
                         s.kv_heads,
                         s.past,
                         s.rows,
                         s.present,
                         s.size * bytes,
                         {f.batch * bytes, f.head * bytes, f.row * bytes, f.base * bytes},
                         s.is_prompt()};
    c.step(append_step, p, {out, given_past(past), from, lengths}, static_cast<double>(present_elements()) / 8);
    return {out, heads_first(s.kv_heads, s.present, s.size), cache, present_elements()};
  }

  AttentionParams params(const Rows& q) const {
    AttentionParams p;
    p.bf16 = bf16;
    p.batch = s.batch;
    p.heads = s.heads;
    p.kv_heads = s.kv_heads;
    p.rows = s.rows;
    p.keys = s.total;
    p.head_size = p.v_head_size = s.size;
    p.q = q.strides;
    p.y = rows_first(s.heads, s.rows, s.size);
    const double scale = static_cast<double>(c.attr_float("scale", 0));
    p.scale = scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(s.size));
    p.softcap = c.attr_float("softcap", 0);
    p.offset_from_lengths = !s.is_prompt();
    p.right = 0;
    p.smooth = c.has_input(kSink) || c.attr_int("smooth_softmax", 0) > 0;
    const int64_t window = c.attr_int("local_window_size", -1);
    p.left = window > 0 ? window - 1 : -1;
    return p;
  }
  Ref queries(const Rows& q) { return converted(c, q.memory, q.dtype, kWork, q.elements); }
  Ref sinks() { return c.has_input(kSink) ? converted(c, c.in(kSink), type, kWork, s.heads) : Ref{}; }
  Ref bias(AttentionParams& p) {
    return c.has_input(kBias) ? attention_bias(c, kBias, s.scores(), kWork, p.bias) : Ref{};
  }

  /// A few new rows: the cache is made while it is read.
  void step_of_decoder(AttentionParams& p, const Rows& q, const Rows& k, const Rows& v) {
    const DecoderCache about{s.past, s.present, k.strides, v.strides, cache, s.is_prompt()};
    DecoderOperands o;
    o.q = queries(q);
    o.key = present(1);
    o.value = present(2);
    o.past_key = given_past(kPastKey);
    o.past_value = given_past(kPastValue);
    o.new_key = in_cache_type(k);
    o.new_value = in_cache_type(v);
    o.bias = bias(p);
    o.sinks = sinks();
    o.lengths = lengths;
    o.y = begin_output(c, 0, kWork);
    lower_cached_attention(c, p, about, o);
    end_output(c, 0, o.y, kWork);
  }

  void attend(AttentionParams& p, const Rows& q, const Rows& k, const Rows& v) {
    p.k = k.strides;
    p.v = v.strides;
    AttentionOperands o;
    o.q = queries(q);
    o.k = converted(c, k.memory, k.dtype, kWork, k.elements);
    o.v = converted(c, v.memory, v.dtype, kWork, v.elements);
    o.lengths = lengths;
    o.sinks = sinks();
    o.bias = bias(p);
    o.y = begin_output(c, 0, kWork);
    if (!o.y.valid()) return;  // the cache alone is wanted
    lower_attention(c, p, o, kWork);
    end_output(c, 0, o.y, kWork);
  }

  LowerContext& c;
  const Sizes s;
  const DType type, cache;
  const bool bf16;  // both products of the heads
  Ref lengths, cos, sin;
};

template <bool kInBf16>
void lower_group_query(LowerContext& c) {
  Lowering(c, kInBf16).run();
}

}  // namespace

void register_group_query_attention(OpRegistry& r) {
  r.add({.domain = kMicrosoft,
         .name = "GroupQueryAttention",
         .min_inputs = 7,
         .max_inputs = 14,
         .max_outputs = 4,
         .infer = infer_group_query,
         .mixed_axes = behind_first_axis},
        {{.name = kOnlyLowering, .lower = lower_group_query<false>},
         {.name = "bf16", .lower = lower_group_query<true>, .precision = Precision::kBf16}});
}

}  // namespace inferkit
