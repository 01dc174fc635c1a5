// Attention of a few new rows over keys and values that lie in a cache: a decoder's step. Each head's cache is copied,
// widened and read chunk by chunk, while a chunk is near, and all query heads that share it are multiplied at once. The
// bits are those of lower_attention over a cache that was extended before.
#pragma once
#include "engine/ops/common/attention.h"

namespace inferkit {

struct DecoderCache {
  int64_t past = 0, present = 0;  // rows before and afterwards
  HeadStrides k, v;               // of the new rows
  DType type = DType::kF32;       // of all of it: float32 or one of its halves
  bool prompt = false;            // nothing of the past counts; else the new rows are the last of each length
};

struct DecoderOperands {
  Ref y, q;  // float
  Ref key, value;
  Ref past_key, past_value;  // invalid where there is none
  Ref new_key, new_value;
  Ref bias, sinks;  // as in AttentionOperands
  Ref lengths;      // int64 [batch], which are not checked
};

/// Is it for so many rows?
bool reads_cache_in_chunks(const AttentionParams& p);

/// Adds the step. Keys and values are [batch, heads, present, size], with zeros behind each length; the strides of `p`
/// for them are not looked at.
void lower_cached_attention(LowerContext& c, const AttentionParams& p, const DecoderCache& cache,
                            const DecoderOperands& operands);

}  // namespace inferkit
