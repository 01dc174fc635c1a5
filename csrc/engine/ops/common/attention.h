// softmax(scale Q K' + bias) V for every head: what the attention operators of ONNX and ONNX Runtime come down to. A
// query row's bits depend on its own batch entry alone.
#pragma once
#include "engine/compile/lower.h"

namespace inferkit {

/// What the optional output of the scores holds.
enum class ScoreStage : uint8_t { kScaled, kCapped, kBiased, kSoftmax };

/// Where [batch, head, row] begins, in elements: base + ...; a row is contiguous.
struct HeadStrides {
  int64_t batch = 0, head = 0, row = 0, base = 0;
};
/// Of a contiguous [batch, heads, rows, size], and of a contiguous [batch, rows, heads, size].
HeadStrides heads_first(int64_t heads, int64_t rows, int64_t size);
HeadStrides rows_first(int64_t heads, int64_t rows, int64_t size, int64_t row_size = 0);

struct AttentionParams {
  int64_t batch = 0, heads = 0, kv_heads = 0;  // heads is a multiple of kv_heads
  int64_t rows = 0, keys = 0, head_size = 0, v_head_size = 0;
  HeadStrides q, k, v, y;
  HeadStrides bias;  // 0 where it repeats
  double scale = 1;
  float softcap = 0;  // 0: none
  /// Row i stands at position offset + i and sees keys within [position - left, position + right]; -1: no bound. With
  /// lengths, keys from lengths[batch] on are hidden, and where `offset_from_lengths` the offset is the length - rows.
  int64_t offset = 0, left = -1, right = -1;
  bool offset_from_lengths = false;
  ScoreStage stage = ScoreStage::kScaled;  // of the scores that are written
  bool smooth = false;  // a row's weights leave room for one more score: that of its head's sink, or 0
  bool bf16 = false;    // both products in bf16; all else in float32, which the type must be
  // Set by lower_attention.
  int64_t slots = 0, block = 0, slot_elements = 0;
};

struct AttentionOperands {
  Ref y, q, k, v;
  Ref bias;     // float: added to the scores; invalid for none
  Ref lengths;  // int64 [batch]; invalid for none
  Ref scores;   // [batch, heads, rows, keys]; invalid where nobody wants them
  Ref sinks;    // float [heads], where the rows are smooth; invalid for zeros
};

/// Adds the step; all floating operands are of `type`, float32 or float64. A row that sees no key gives zeros.
void lower_attention(LowerContext& c, AttentionParams p, const AttentionOperands& operands, DType type);

/// A mask as the bias of [*, *, rows or 1, keys] in `type`: booleans become 0 and -inf, floating types are converted;
/// keys beyond the mask's last dimension get -inf. `strides` says how the result repeats.
Ref attention_bias(LowerContext& c, size_t input, const Shape& scores, DType type, HeadStrides& strides);
/// Fails where input `input` is no mask for scores of that shape.
void check_attention_mask(const NodeContext& c, size_t input, const Shape& scores);

/// Keys or values: `past_rows` (may be 0) from a contiguous [batch, heads, past_rows, size], then `rows` new ones.
struct CacheRows {
  int64_t batch, heads, past_rows, rows, size;
  HeadStrides fresh;
  int64_t past_base = 0, out_base = 0;  // where the past and the result begin, in elements
};
/// Writes them as a contiguous [batch, heads, past_rows + rows, size] of elements of `dtype`.
void lower_extend_cache(LowerContext& c, Ref out, Ref past, Ref fresh, const CacheRows& rows, DType dtype);

}  // namespace inferkit
