#include "engine/ops/common/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/ops/common/attention_rows.h"
#include "engine/ops/common/copy_rows.h"
#include "engine/ops/dispatch.h"
#include "kernels/cpu/gemm64/gemm64.h"
#include "kernels/cpu/gemm_bf16/gemm_bf16.h"
#include "kernels/summation.h"
#include "platform/aligned_alloc.h"
#include "platform/run_control.h"
#include "platform/thread_pool.h"

namespace inferkit {
namespace {

constexpr int64_t kScoreElements = 1 << 16;     // scores that one block of rows may take: a part of L2
constexpr int64_t kCausalBlock = 48;            // rows: a block reads the keys that its last row sees
constexpr int64_t kParallelProducts = 1 << 19;  // multiply-adds that are worth a thread

constexpr int64_t kAlign = 16;  // floats of a cache line

/// The two products of one head, of which K and V are packed once.
template <class T>
struct HeadProducts {
  using Gemm = kernels::GemmOf<T>;
  static constexpr int64_t kPanel = kernels::kPanelColumnsOf<T>;

  static int64_t elements(const AttentionParams& p) {
    return static_cast<int64_t>(Gemm::packed_elements(p.head_size, p.keys) +
                                (in_place(p) ? 0 : Gemm::packed_elements(p.keys, p.v_head_size)));
  }
  static bool in_place(const AttentionParams& p) { return p.v_head_size % kPanel == 0; }

  HeadProducts(const AttentionParams& params, const T* k, const T* v, int64_t keys, T* scratch)
      : p(params), packed_k(scratch), v_panels(v) {
    kernels::pack_b_transposed(k, p.k.row, p.head_size, keys, scratch);
    v_panel_stride = kPanel;
    v_row_stride = p.v.row;
    if (in_place(p)) return;
    scratch += Gemm::packed_elements(p.head_size, p.keys);
    kernels::pack_b(v, p.v.row, keys, p.v_head_size, scratch);
    v_panels = scratch;
    v_panel_stride = keys * kPanel;
    v_row_stride = kPanel;
  }
  void scores(const T* q, int64_t rows, int64_t keys, T* out) const {
    kernels::GemmArgsOf<T> g;
    g.m = rows;
    g.n = keys;
    g.k = p.head_size;
    g.a = q;
    g.lda = p.q.row;
    g.c = out;
    g.ldc = p.keys;
    g.k_chunk = Gemm::chunk(kernels::sum_chunk(g.k));
    kernels::use_packed_b(g, packed_k);
    Gemm::one(g);
  }
  void values(const T* weights, int64_t rows, int64_t keys, T* y) const {
    kernels::GemmArgsOf<T> g;
    g.m = rows;
    g.n = p.v_head_size;
    g.k = keys;
    g.a = weights;
    g.lda = p.keys;
    g.b = v_panels;
    g.b_k_stride = v_row_stride;
    g.b_panel_stride = v_panel_stride;
    g.c = y;
    g.ldc = p.y.row;
    g.k_chunk = Gemm::chunk(kernels::kValueChunk);
    Gemm::one(g);
  }

  const AttentionParams& p;
  const T *packed_k, *v_panels;
  int64_t v_panel_stride, v_row_stride;
};

template <>
struct HeadProducts<BFloat16> {
  static int64_t elements(const AttentionParams& p) {
    return static_cast<int64_t>(kernels::packed_b_bf16_elements(p.head_size, p.keys) +
                                kernels::packed_b_bf16_elements(p.keys, p.v_head_size) +
                                kernels::packed_b_bf16_elements(1, p.v_head_size));
  }

  HeadProducts(const AttentionParams& params, const float* k, const float* v, int64_t keys, float* scratch)
      : p(params),
        packed_k(reinterpret_cast<uint32_t*>(scratch)),
        packed_v(packed_k + kernels::packed_b_bf16_elements(p.head_size, p.keys)),
        hidden(packed_v + kernels::packed_b_bf16_elements(p.keys, p.v_head_size)) {
    kernels::pack_b_transposed(k, p.k.row, p.head_size, keys, packed_k);
    kernels::pack_b(v, p.v.row, keys, p.v_head_size, packed_v);
  }
  void scores(const float* q, int64_t rows, int64_t keys, float* out) const {
    kernels::GemmArgsBf16 g;
    g.m = rows;
    g.n = keys;
    g.k = p.head_size;
    g.a = q;
    g.lda = p.q.row;
    g.c = out;
    g.ldc = p.keys;
    g.k_chunk = kernels::chunk_of_pairs(kernels::sum_chunk(g.k));
    kernels::use_packed_b(g, packed_k);
    kernels::gemm_bf16(g);
  }
  void values(const float* weights, int64_t rows, int64_t keys, float* y) const {
    // Of the last pair, the key that this block does not see: it counts zero times, which is not nothing if it is NaN.
    const bool cuts = keys % 2 != 0 && keys < p.keys;
    const int64_t panels = (p.v_head_size + kernels::kPanelColumns - 1) / kernels::kPanelColumns;
    const int64_t panel = (p.keys + 1) / 2 * kernels::kPanelColumns;
    uint32_t* last = packed_v + keys / 2 * kernels::kPanelColumns;
    for (int64_t i = 0; cuts && i < panels; ++i) {
      for (int64_t j = 0; j < kernels::kPanelColumns; ++j) {
        uint32_t& pair = last[i * panel + j];
        hidden[i * kernels::kPanelColumns + j] = pair;
        pair &= 0xffffu;
      }
    }
    kernels::GemmArgsBf16 g;
    g.m = rows;
    g.n = p.v_head_size;
    g.k = keys;
    g.a = weights;
    g.lda = p.keys;
    g.b = packed_v;
    g.b_panel_stride = panel;
    g.c = y;
    g.ldc = p.y.row;
    g.k_chunk = kernels::kLongestChunk;
    kernels::gemm_bf16(g);
    for (int64_t i = 0; cuts && i < panels; ++i) {
      std::copy_n(hidden + i * kernels::kPanelColumns, kernels::kPanelColumns, last + i * panel);
    }
  }

  const AttentionParams& p;
  uint32_t *packed_k, *packed_v, *hidden;  // the latter: room for a row of V
};

/// One batch entry and key head, for all query heads that share it; products are in T, all else in W.
template <class W, class T = W>
class HeadTask {
 public:
  HeadTask(const AttentionParams& params, std::byte* const* io, int64_t task, W* scratch)
      : p(params),
        b(task / p.kv_heads),
        kv(task % p.kv_heads),
        rows_(params, reinterpret_cast<const int64_t*>(io[5]), b),
        scores_(reinterpret_cast<W*>(io[6])),
        sinks_(reinterpret_cast<const W*>(io[8])) {
    const auto at = [&](size_t i, const HeadStrides& s, int64_t head) {
      return reinterpret_cast<W*>(io[i]) + s.base + b * s.batch + head * s.head;
    };
    const int64_t group = p.heads / p.kv_heads;
    const HeadProducts<T> products(p, at(2, p.k, kv), at(3, p.v, kv), p.keys,
                                   scratch + round_up(p.block * p.keys, kAlign));
    for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
      const W* bias = io[4] ? at(4, p.bias, h) : nullptr;
      for (int64_t first = 0; first < p.rows && RunControl::goes_on(); first += p.block) {
        run(products, h, first, std::min(p.rows, first + p.block), at(1, p.q, h), bias, at(0, p.y, h), scratch);
      }
    }
  }

 private:
  void run(const HeadProducts<T>& products, int64_t h, int64_t first, int64_t last, const W* q, const W* bias, W* y,
           W* x) const {
    W* const kept = scores_ ? scores_ + (b * p.heads + h) * p.rows * p.keys : nullptr;
    const int64_t width = kept ? p.keys : rows_.end(last - 1);  // keys that some row of the block sees
    products.scores(q + first * p.q.row, last - first, width, x);
    const W sink = sinks_ ? sinks_[h] : W(0);
    for (int64_t i = first; i < last; ++i) {
      rows_.weights(x + (i - first) * p.keys, width, i, sink, bias ? bias + i * p.bias.row : nullptr,
                    kept ? kept + i * p.keys : kept);
    }
    products.values(x, last - first, width, y + first * p.y.row);
  }

  const AttentionParams& p;
  const int64_t b, kv;
  const ScoreRows<W> rows_;
  W* const scores_;
  const W* const sinks_;
};

/// io: y, q, k, v, bias, lengths, scores, scratch, sinks.
template <class W, class T = W>
void attention_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const AttentionParams*>(params);
  const int64_t tasks = p.batch * p.kv_heads;
  const auto run = [&](int64_t slot, int64_t slots) {
    W* scratch = reinterpret_cast<W*>(io[7]) + slot * p.slot_elements;
    const int64_t end = tasks * (slot + 1) / slots;
    for (int64_t t = tasks * slot / slots; t < end; ++t) HeadTask<W, T>(p, io, t, scratch);
  };
  const int64_t work = p.batch * p.heads * p.rows * p.keys * (p.head_size + p.v_head_size);
  const int64_t slots =
      context.pool ? std::min({p.slots, int64_t{context.max_threads}, work / kParallelProducts}) : int64_t{1};
  if (slots <= 1) return run(0, 1);
  context.pool->parallel_for(slots, context.max_threads, [&](int64_t slot) { run(slot, slots); });
}

struct BiasParams {
  int64_t rows, given, keys;
};
/// io: the bias, the mask.
template <class M, class W>
void bias_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const BiasParams*>(params);
  constexpr W kHidden = -std::numeric_limits<W>::infinity();
  const auto* mask = reinterpret_cast<const M*>(io[1]);
  auto* out = reinterpret_cast<W*>(io[0]);
  WorkMeter meter;
  for (int64_t r = 0; r < p.rows && meter.go_on(p.keys); ++r, mask += p.given, out += p.keys) {
    for (int64_t j = 0; j < p.given; ++j) {
      if constexpr (std::is_same_v<M, bool>) {
        out[j] = mask[j] ? W(0) : kHidden;
      } else {
        out[j] = static_cast<W>(load(mask[j]));
      }
    }
    std::fill(out + p.given, out + p.keys, kHidden);
  }
}

/// In bytes.
struct CacheParams {
  int64_t batch, heads, past, rows, row;
  HeadStrides fresh;
  int64_t past_base, out_base;
};
/// io: out, past, fresh.
void extend_cache_step(const void* params, std::byte* const* io, const ExecContext&) {
  const auto& p = *static_cast<const CacheParams*>(params);
  std::byte* out = io[0] + p.out_base;
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.heads; ++h) {
      if (p.past > 0) copy_rows(out, p.past, io[1] + p.past_base + (b * p.heads + h) * p.past, p.past, p.past, 1);
      out += p.past;
      const std::byte* fresh = io[2] + p.fresh.base + b * p.fresh.batch + h * p.fresh.head;
      copy_rows(out, p.row, fresh, p.fresh.row, p.row, p.rows);
      out += p.rows * p.row;
    }
  }
}

}  // namespace

HeadStrides heads_first(int64_t heads, int64_t rows, int64_t size) { return {heads * rows * size, rows * size, size}; }
HeadStrides rows_first(int64_t heads, int64_t rows, int64_t size, int64_t row_size) {
  const int64_t row = row_size > 0 ? row_size : heads * size;
  return {rows * row, size, row};
}

void lower_attention(LowerContext& c, AttentionParams p, const AttentionOperands& operands, DType type) {
  const int64_t tasks = p.batch * p.kv_heads;
  if (tasks == 0 || p.rows == 0) return;
  const bool single = type == DType::kF32;
  p.block = std::clamp<int64_t>(kScoreElements / std::max<int64_t>(1, p.keys), 12, std::max<int64_t>(12, p.rows));
  if (p.right >= 0) p.block = std::min(p.block, kCausalBlock);
  p.block = std::min(p.block, p.rows);
  p.slots = std::clamp<int64_t>(c.threads(), 1, tasks);
  // The packed operands behind the scores begin on a cache line.
  const int64_t packed = p.bf16   ? HeadProducts<BFloat16>::elements(p)
                         : single ? HeadProducts<float>::elements(p)
                                  : HeadProducts<double>::elements(p);
  p.slot_elements = round_up(p.block * p.keys, kAlign) + round_up(packed, kAlign) + (p.smooth ? kAlign : 0);
  const size_t bytes = static_cast<size_t>(p.slots * p.slot_elements) * dtype_size(type);
  const double work = multiplied(p.batch, p.heads, p.rows, p.keys) *
                      (static_cast<double>(p.head_size + p.v_head_size) / (p.bf16   ? 60
                                                                           : single ? 30
                                                                                    : 15) +
                       1);
  const StepFn step = p.bf16   ? attention_step<float, BFloat16>
                      : single ? attention_step<float>
                               : attention_step<double>;
  c.step(step, p,
         {operands.y, operands.q, operands.k, operands.v, operands.bias, operands.lengths, operands.scores,
          c.scratch(std::max<size_t>(bytes, 1)), operands.sinks},
         work);
}

void check_attention_mask(const NodeContext& c, size_t input, const Shape& scores) {
  const Shape& mask = c.input(input).shape;
  bool fits = mask.rank() >= 1 && mask.rank() <= 4;
  for (size_t i = 0; fits && i + 1 < mask.rank(); ++i) {
    fits = mask[i] == 1 || mask[i] == scores[4 - mask.rank() + i];
  }
  if (!fits || mask.back() > scores[3]) {
    c.fail(cat("a mask of shape ", mask.str(), " does not fit scores of shape ", scores.str()));
  }
  if (mask.back() == 1 && scores[3] > 1) {
    c.unsupported("a mask of one key: whether it repeats or hides the others is open");
  }
  require_type(c, input, kFloatTypes | kBoolType);
}

Ref attention_bias(LowerContext& c, size_t input, const Shape& scores, DType type, HeadStrides& strides) {
  const Shape& mask = c.input(input).shape;
  Shape full{1, 1, 1, scores[3]};
  for (size_t i = 0; i + 1 < mask.rank(); ++i) full[4 - mask.rank() + i] = mask[i];
  const auto own = full.strides();
  strides = {full[0] == 1 ? 0 : own[0], full[1] == 1 ? 0 : own[1], full[2] == 1 ? 0 : own[2]};
  if (c.input(input).dtype == type && mask.back() == scores[3]) return c.in(input);
  const StepFn fn = dispatch<kFloatTypes | kBoolType>(c.input(input).dtype, [&]<class M>() -> StepFn {
    return type == DType::kF32 ? bias_step<M, float> : bias_step<M, double>;
  });
  const BiasParams p{full.elements(0, 3), mask.back(), scores[3]};
  const Ref out = c.scratch(static_cast<size_t>(full.elements()) * dtype_size(type));
  c.step(fn, p, {out, c.in(input)}, static_cast<double>(full.elements()));
  return out;
}

void lower_extend_cache(LowerContext& c, Ref out, Ref past, Ref fresh, const CacheRows& rows, DType dtype) {
  const auto bytes = static_cast<int64_t>(dtype_size(dtype));
  const HeadStrides& f = rows.fresh;
  const CacheParams p{rows.batch,
                      rows.heads,
                      past.valid() ? rows.past_rows * rows.size * bytes : 0,
                      rows.rows,
                      rows.size * bytes,
                      {f.batch * bytes, f.head * bytes, f.row * bytes, f.base * bytes},
                      rows.past_base * bytes,
                      rows.out_base * bytes};
  c.step(extend_cache_step, p, {out, past, fresh},
         multiplied(rows.batch, rows.heads, rows.past_rows + rows.rows, rows.size) / 8);
}

}  // namespace inferkit
