#include "engine/ops/common/attention_cache.h"

#include <algorithm>
#include <cstring>

#include "engine/ops/common/attention_rows.h"
#include "engine/ops/dispatch.h"
#include "engine/ops/parallel.h"
#include "kernels/cpu/gemm/gemm.h"
#include "kernels/cpu/half/half.h"
#include "kernels/summation.h"
#include "platform/aligned_alloc.h"

namespace inferkit {
namespace {

constexpr int64_t kMostRows = 32;                    // of all query heads that share a cache
constexpr int64_t kKeyBlock = 32;                    // keys that are packed at once: in L1
constexpr int64_t kChunk = kernels::kValueChunk;     // keys and values that are copied at once
constexpr int64_t kWorthAThread = int64_t{1} << 18;  // products, or bytes

constexpr int64_t kLine = 16;  // floats
int64_t to_line(int64_t floats) { return round_up(floats, kLine); }

struct CachedParams {
  AttentionParams attention;
  DecoderCache cache;
  int64_t slots = 0;

  int64_t group() const { return attention.heads / attention.kv_heads; }
  int64_t queries() const { return group() * attention.rows; }
  /// A panel of values is read where it is.
  bool in_place() const { return attention.head_size % kernels::kPanelColumns == 0; }
};

/// Where the parts of a thread's scratch begin, in floats.
struct Room {
  int64_t queries, packed, wide, bytes;
  explicit Room(const CachedParams& p) {
    const AttentionParams& a = p.attention;
    const auto panels = [&](int64_t k, int64_t n) { return static_cast<int64_t>(kernels::packed_b_elements(k, n)); };
    queries = to_line(p.queries() * a.keys + kLine);  // behind the scores, with one more for a sink
    packed = queries + to_line(2 * p.queries() * a.head_size);
    wide = packed + to_line(std::max(panels(a.head_size, kKeyBlock), p.in_place() ? 0 : panels(kChunk, a.head_size)));
    bytes = (wide + (p.cache.type == DType::kF32 ? 0 : to_line(kChunk * a.head_size))) * int64_t{sizeof(float)};
  }
};

/// The keys or the values of one head; T is what the cache holds.
template <class T>
class CacheHead {
 public:
  CacheHead(const CachedParams& params, std::byte* to, const std::byte* past, const std::byte* fresh,
            const HeadStrides& strides, int64_t b, int64_t kv, int64_t before)
      : p_(params),
        to_(reinterpret_cast<T*>(to) + (b * p_.attention.kv_heads + kv) * p_.cache.present * size()),
        past_(reinterpret_cast<const T*>(past) + (b * p_.attention.kv_heads + kv) * p_.cache.past * size()),
        fresh_(reinterpret_cast<const T*>(fresh) + strides.base + b * strides.batch + kv * strides.head),
        fresh_row_(strides.row),
        before_(before) {}

  /// Writes rows [first, last) of the cache.
  void extend(int64_t first, int64_t last) const {
    int64_t row = std::clamp(before_, first, last);
    copy(to_ + first * size(), past_ + first * size(), (row - first) * size());
    for (; row < std::min(last, before_ + p_.attention.rows); ++row) {
      std::memcpy(to_ + row * size(), fresh_ + (row - before_) * fresh_row_, bytes(1));
    }
    if (row < last) std::memset(to_ + row * size(), 0, bytes(last - row));
  }
  /// Rows [first, last) as floats, in `room` where they have to be widened.
  const float* wide(int64_t first, int64_t last, float* room) const {
    const T* rows = to_ + first * size();
    if constexpr (std::is_same_v<T, float>)
      return rows;
    else {
      kernels::widen(rows, room, (last - first) * size());
      return room;
    }
  }

 private:
  /// In pieces of a page: one call for all took a tenth longer, with the memory in L3.
  static void copy(T* to, const T* from, int64_t count) {
    constexpr int64_t kPiece = 4096 / sizeof(T);
    for (int64_t i = 0; i < count; i += kPiece) {
      std::memcpy(to + i, from + i, static_cast<size_t>(std::min(kPiece, count - i)) * sizeof(T));
    }
  }
  int64_t size() const { return p_.attention.head_size; }
  size_t bytes(int64_t rows) const { return static_cast<size_t>(rows * size()) * sizeof(T); }

  const CachedParams& p_;
  T* const to_;
  const T *const past_, *const fresh_;
  const int64_t fresh_row_, before_;
};

/// One batch entry and head of the cache. io: y, q, key, value, past key, past value, new key, new value, bias, sinks,
/// lengths, scratch.
template <class T>
class CachedTask {
 public:
  CachedTask(const CachedParams& params, std::byte* const* io, int64_t task, float* scratch)
      : p_(params),
        a_(params.attention),
        b_(task / a_.kv_heads),
        kv_(task % a_.kv_heads),
        scratch_(scratch),
        room_(params),
        rows_(a_, lengths(io), b_),
        key_(params, io[2], io[4], io[6], params.cache.k, b_, kv_, before(io)),
        value_(params, io[3], io[5], io[7], params.cache.v, b_, kv_, before(io)),
        width_(rows_.end(a_.rows - 1)) {}

  void run(std::byte* const* io) const {
    const int64_t group = p_.group(), first_head = kv_ * group;
    const auto head = [&](size_t i, const HeadStrides& s, int64_t h) {
      return reinterpret_cast<float*>(io[i]) + s.base + b_ * s.batch + h * s.head;
    };
    // With one row a head, the rows of the products are those of the heads; else they are gathered.
    const bool gathers = a_.rows > 1;
    float* q = gathers ? scratch_ + room_.queries : head(1, a_.q, first_head);
    float* y = gathers ? q + p_.queries() * a_.head_size : head(0, a_.y, first_head);
    if (gathers) {
      each_row([&](int64_t h, int64_t i, int64_t at) {
        std::copy_n(head(1, a_.q, first_head + h) + i * a_.q.row, a_.head_size, q + at * a_.head_size);
      });
    }
    scores(q, gathers ? a_.head_size : a_.q.head);
    each_row([&](int64_t h, int64_t i, int64_t at) {
      const float* bias = io[8] ? head(8, a_.bias, first_head + h) + i * a_.bias.row : nullptr;
      const float sink = io[9] ? reinterpret_cast<const float*>(io[9])[first_head + h] : 0.0f;
      rows_.weights(scratch_ + at * a_.keys, width_, i, sink, bias, nullptr);
    });
    values(y, gathers ? a_.head_size : a_.y.head);
    if (gathers) {
      each_row([&](int64_t h, int64_t i, int64_t at) {
        std::copy_n(y + at * a_.head_size, a_.head_size, head(0, a_.y, first_head + h) + i * a_.y.row);
      });
    }
  }

 private:
  static const int64_t* lengths(std::byte* const* io) { return reinterpret_cast<const int64_t*>(io[10]); }
  int64_t before(std::byte* const* io) const { return p_.cache.prompt ? 0 : lengths(io)[b_] - a_.rows; }

  /// f(query head of this key head, row, row of the products).
  template <class F>
  void each_row(F f) const {
    for (int64_t h = 0; h < p_.group(); ++h) {
      for (int64_t i = 0; i < a_.rows; ++i) f(h, i, h * a_.rows + i);
    }
  }
  /// f(first, last) for the chunks of the cache.
  template <class F>
  void each_chunk(F f) const {
    for (int64_t first = 0; first < p_.cache.present && RunControl::goes_on(); first += kChunk) {
      f(first, std::min(first + kChunk, p_.cache.present));
    }
  }

  void scores(const float* q, int64_t q_row) const {
    kernels::GemmArgs g;
    g.m = p_.queries();
    g.k = a_.head_size;
    g.a = q;
    g.lda = q_row;
    g.ldc = a_.keys;
    g.k_chunk = kernels::sum_chunk(g.k);
    float* packed = scratch_ + room_.packed;
    kernels::use_packed_b(g, packed);
    each_chunk([&](int64_t first, int64_t last) {
      const int64_t seen = std::clamp(width_, first, last);
      for (int64_t at = first; at < seen; at += kKeyBlock) {
        const int64_t end = std::min(at + kKeyBlock, seen);
        key_.extend(at, end);
        const float* keys = key_.wide(at, end, scratch_ + room_.wide);
        kernels::pack_b_transposed(keys, a_.head_size, a_.head_size, end - at, packed);
        g.n = end - at;
        g.c = scratch_ + at;
        kernels::gemm_f32(g);
      }
      key_.extend(seen, last);
    });
  }

  void values(float* y, int64_t y_row) const {
    kernels::GemmArgs g;
    g.m = p_.queries();
    g.n = a_.head_size;
    g.lda = a_.keys;
    g.c = y;
    g.ldc = g.ldr = y_row;
    g.k_chunk = kChunk;
    each_chunk([&](int64_t first, int64_t last) {
      value_.extend(first, last);
      if (first > 0 && first >= width_) return;
      const int64_t end = std::min(last, width_);
      const float* values = value_.wide(first, end, scratch_ + room_.wide);
      g.k = end - first;
      g.a = scratch_ + first;
      if (p_.in_place()) {
        g.b = values;
        g.b_k_stride = a_.head_size;
        g.b_panel_stride = kernels::kPanelColumns;
      } else {
        kernels::pack_b(values, a_.head_size, g.k, g.n, scratch_ + room_.packed);
        kernels::use_packed_b(g, scratch_ + room_.packed);
      }
      g.residual = first > 0 ? y : nullptr;  // a chunk is added to those before, as within one product
      kernels::gemm_f32(g);
    });
  }

  const CachedParams& p_;
  const AttentionParams& a_;
  const int64_t b_, kv_;
  float* const scratch_;
  const Room room_;
  const ScoreRows<float> rows_;
  const CacheHead<T> key_, value_;
  const int64_t width_;  // the keys that some row sees
};

template <class T>
void cached_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const CachedParams*>(params);
  const AttentionParams& a = p.attention;
  const int64_t tasks = a.batch * a.kv_heads, slot_bytes = Room(p).bytes;
  const int64_t work = 2 * tasks * a.head_size * (p.queries() * a.keys + p.cache.present * int64_t{sizeof(T)});
  const int64_t slots = std::clamp<int64_t>(work / kWorthAThread, 1, p.slots);
  for_tasks(context, tasks, static_cast<int>(slots), [&](int64_t task, int64_t slot) {
    CachedTask<T>(p, io, task, reinterpret_cast<float*>(io[11] + slot * slot_bytes)).run(io);
  });
}

}  // namespace

bool reads_cache_in_chunks(const AttentionParams& p) {
  return !p.bf16 && p.head_size == p.v_head_size && p.heads / p.kv_heads * p.rows <= kMostRows;
}

void lower_cached_attention(LowerContext& c, const AttentionParams& attention, const DecoderCache& cache,
                            const DecoderOperands& operands) {
  const int64_t tasks = attention.batch * attention.kv_heads;
  if (tasks == 0 || attention.rows == 0) return;
  const CachedParams p{attention, cache, std::clamp<int64_t>(c.threads(), 1, tasks)};
  const StepFn step = dispatch<types(DType::kF32, DType::kF16, DType::kBF16)>(
      cache.type, [&]<class T>() -> StepFn { return cached_step<T>; });
  const auto elements = multiplied(2, tasks, cache.present, attention.head_size);
  const double products = elements * static_cast<double>(p.queries());
  c.step(step, p,
         {operands.y, operands.q, operands.key, operands.value, operands.past_key, operands.past_value,
          operands.new_key, operands.new_value, operands.bias, operands.sinks, operands.lengths,
          c.scratch(static_cast<size_t>(p.slots * Room(p).bytes))},
         elements / 6 + products / 30);
}

}  // namespace inferkit
