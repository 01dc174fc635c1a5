// Values that lie as blocks of sixteen channels: [batch, channels / 16, spatial..., 16].
#pragma once
#include "base/shape.h"
#include "graph/op_schema.h"

namespace inferkit {

inline constexpr int64_t kBlockChannels = 16;
/// Channels that pointwise convolutions read from planes where they lie: each is another page of memory.
inline constexpr int64_t kMostPlanes = 64;

/// Is it of a type and a rank that can lie so?
bool may_have_blocks(const TensorFacts& facts);

/// A shape that broadcasts to `whole`, as [batch, channels / 16, spatial..., 16]; one that has no channels as it is.
Shape blocks_view(const Shape& shape, const Shape& whole);

/// What turning a value into the other layout takes, as nanoseconds on one thread.
double reorder_nanos(const Shape& shape);
/// The same of a pool over blocks, by the shape of its output and the elements of its window.
double pool_blocks_nanos(const Shape& shape, int64_t window_elements);

}  // namespace inferkit
