// A padded copy of an image whose columns and rows are split by stride, so that the pixels of an output row lie side by
// side for every tap of a convolution; tap (c, i, j) is then one offset.
#pragma once
#include <limits>
#include <memory>

#include "engine/ops/common/conv.h"

namespace inferkit {

/// How a layer's image is split; a block is some output rows, or some columns where there is one row.
struct ConvSplit {
  static constexpr int64_t kMostTaps = 1 << 20;      // of the table of offsets, which a plan holds
  static constexpr int64_t kBlockBytes = 512 << 10;  // of the copy: it stays in L2 beside the weights
  static constexpr int64_t kLeastPlaces = 64;        // of a block
  static constexpr int64_t kMostFloats = std::numeric_limits<int32_t>::max() / 2;
  kernels::ConvDim h, w;
  int64_t h_phases, w_phases, h_reach, w_reach;  // reach: rows and columns of a phase past the output's
  int64_t shared;                                // columns that pad a row on the right and the next one on the left
  bool possible;

  bool by_columns() const { return h.out == 1; }
  /// A block is made of units: rows of output, or columns. `unit_places` belong to one.
  int64_t units() const { return by_columns() ? w.out : h.out; }
  int64_t pitch() const { return w.out + w_reach - shared; }
  int64_t unit_places() const { return by_columns() ? 1 : pitch(); }
  int64_t reach() const { return by_columns() ? w_reach : h_reach; }
  int64_t least_block() const { return std::min(units(), (kLeastPlaces + unit_places() - 1) / unit_places()); }
  /// Floats of the copy for a unit.
  int64_t unit_floats(int64_t channels) const {
    return channels * phases() * (by_columns() ? h_reach + 1 : unit_places());
  }
  /// The block whose copy fits the cache.
  int64_t block(int64_t channels) const {
    const int64_t fit = kBlockBytes / static_cast<int64_t>(sizeof(float)) / unit_floats(channels);
    return std::clamp(fit - reach(), least_block(), units());
  }
  int64_t phases() const { return h_phases * w_phases; }
};

inline ConvSplit split_of(const ConvShape& s) {
  kernels::ConvDim dim[3];
  for (size_t d = 0; d < 3; ++d) dim[d] = conv_dim(s.window.dim[d]);
  move_in(dim);
  ConvSplit split{};
  if (s.pointwise() || s.window_elements() == 0 || s.window_elements() > ConvSplit::kMostTaps) return split;
  split.h = dim[1];
  split.w = dim[2];
  split.possible = is_single(dim[0]);
  split.h_phases = phases_of(split.h);
  split.w_phases = phases_of(split.w);
  split.h_reach = (split.h.kernel - 1) * split.h.dilation / split.h.stride;
  split.w_reach = (split.w.kernel - 1) * split.w.dilation / split.w.stride;
  if (split.w.stride == 1 && !split.by_columns()) {
    const int64_t right = split.w.out + split.w_reach - split.w.pad_begin - split.w.in;
    split.shared = std::clamp<int64_t>(std::min(split.w.pad_begin, right), 0, split.w_reach);
  }
  const auto phases = static_cast<double>(split.h_phases) * static_cast<double>(split.w_phases);
  const auto most = static_cast<double>(std::max(split.w.out + split.w_reach, split.h_reach + 1));
  split.possible = split.possible && static_cast<double>(s.channels) * phases * most < ConvSplit::kMostFloats;
  return split;
}

/// The copies of blocks of `block` units.
struct SplitCopy {
  kernels::SplitPlaneArgs split;
  bool by_columns;
  int64_t channels, in_area, reach;  // reach: rows of a block past the output's
  int64_t block, blocks;

  int64_t planes() const { return channels * split.h_phases * split.w_phases; }
};

inline SplitCopy split_copy(const ConvShape& s, const ConvSplit& split, int64_t block) {
  SplitCopy p{};
  p.by_columns = split.by_columns();
  p.channels = s.channels;
  p.in_area = s.window.in_elements();
  p.reach = split.h_reach;
  const int64_t units = split.units();
  p.blocks = (units + block - 1) / block;
  p.block = (units + p.blocks - 1) / p.blocks;
  constexpr int64_t kLanes = 16;
  if (p.by_columns) p.block = std::min(units, (p.block + kLanes - 1) / kLanes * kLanes);
  p.blocks = (units + p.block - 1) / p.block;
  p.split.h = split.h;
  p.split.w = split.w;
  p.split.h_phases = split.h_phases;
  p.split.w_phases = split.w_phases;
  p.split.width = (p.by_columns ? p.block : split.w.out) + split.w_reach;
  p.split.pitch = p.split.width - split.shared;
  p.split.plane = ((p.by_columns ? 1 : p.block) + split.h_reach) * p.split.pitch + split.shared + kLanes;
  return p;
}

/// What a block has of the output: its first pixel, and how many rows of how many pixels.
struct CopiedBlock {
  int64_t pixel, rows, width;
};
/// Number `block` of the image x; `to` has room for planes() * split.plane floats.
inline CopiedBlock copy_block(const SplitCopy& p, const float* x, int64_t block, float* to) {
  kernels::SplitPlaneArgs split = p.split;
  const int64_t first = block * p.block;
  CopiedBlock out{first, 1, 0};
  if (p.by_columns) {
    split.w.pad_begin -= first * split.w.stride;
    split.rows = p.reach + 1;
    out.width = std::min(p.block, split.w.out - first);
  } else {
    split.first = first;
    out.width = split.w.out;
    out.rows = std::min(p.block, split.h.out - first);
    out.pixel = first * out.width;
    split.rows = out.rows + p.reach;
  }
  const auto split_plane = kernels::conv_kernels().split_plane;
  for (int64_t c = 0; c < p.channels; ++c) {
    split.x = x + c * p.in_area;
    split.to = to + c * split.h_phases * split.w_phases * split.plane;
    split_plane(split);
  }
  return out;
}

/// Where each tap of each channel begins in the copy.
inline std::shared_ptr<const void> tap_offsets(const ConvShape& s, const ConvSplit& split, int64_t pitch,
                                               int64_t plane) {
  void* data = nullptr;
  const Tensor offsets = make_tensor(DType::kI32, {s.window_elements()}, &data);
  auto* to = static_cast<int32_t*>(data);
  const kernels::ConvDim &h = split.h, &w = split.w;
  for (int64_t c = 0; c < s.channels; ++c) {
    for (int64_t i = 0; i < h.kernel; ++i) {
      for (int64_t j = 0; j < w.kernel; ++j) {
        const int64_t y = i * h.dilation, x = j * w.dilation;
        const int64_t phase = (c * split.h_phases + y % h.stride) * split.w_phases + x % w.stride;
        *to++ = static_cast<int32_t>(phase * plane + y / h.stride * pitch + x / w.stride);
      }
    }
  }
  return {offsets.owner, offsets.data};
}

}  // namespace inferkit
