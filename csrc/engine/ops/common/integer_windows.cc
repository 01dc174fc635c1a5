// ConvInteger and QLinearConv at stride 1: the image is packed once, and windows are read where they lie.
#include <algorithm>
#include <vector>

#include "engine/ops/common/byte_product.h"
#include "engine/ops/common/conv.h"
#include "engine/ops/common/integer_conv.h"

namespace inferkit {
namespace {

constexpr int64_t kImageBytes = 192 << 10;  // of a block of rows: they stay in L2
constexpr double kLargestBytes = 4 << 20;   // of the rows that the fewest rows of outputs read
constexpr int64_t kLongestLine = 1 << 24;   // elements of one dimension, channels too
constexpr int64_t kLeastRows = 8;           // of outputs, or too many rows of the image are packed again

struct WindowsParams {
  IntegerConv conv;
  WindowDim h, w;
  int64_t groups_of_channels, steps, pitch;
  int64_t block, blocks;  // of output rows
  int64_t in_rows;        // that a block reads
  int64_t offsets_bytes, room_bytes, slot_bytes;
  bool is_signed;
  int slots;
};

int64_t reach_of(const WindowDim& d) { return (d.kernel - 1) * d.dilation; }
int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Columns of the packed image: what the last outputs read, and the image with its padding.
int64_t pitch_of(const WindowDim& w) {
  const int64_t read = rounded(w.out, kernels::kIgemmColumns) + reach_of(w);
  return rounded(std::max(read, w.pad_begin + w.in), kernels::kIgemmColumns);
}

/// Bytes of one row of the packed image, of all channels.
int64_t row_bytes(const IntegerConv& p) {
  return rounded(p.channels, kernels::igemm_kernels().depth) / kernels::igemm_kernels().depth *
         pitch_of(p.window.dim[2]) * 4;
}

void windows_task(const WindowsParams& p, std::byte* const* io, int64_t task, std::byte* scratch) {
  const IntegerConv& conv = p.conv;
  const auto& kernels = kernels::igemm_kernels();
  const int64_t image = task / p.blocks, group = image % conv.groups;  // an image and a group of its channels
  const int64_t first = task % p.blocks * p.block, rows = std::min(p.block, p.h.out - first);
  auto* const offsets = reinterpret_cast<int64_t*>(scratch);
  kernels::ImageArgs in;
  in.x = io[1] + image * conv.channels * p.h.in * p.w.in;
  in.channels = conv.channels;
  in.height = p.h.in;
  in.width = p.w.in;
  in.first = first - p.h.pad_begin;
  in.rows = rows + reach_of(p.h);
  in.pitch = p.pitch;
  in.pad = p.w.pad_begin;
  in.zero = io[3] ? static_cast<uint8_t>(*io[3]) : uint8_t{0};
  in.is_signed = p.is_signed;
  in.room = scratch + p.offsets_bytes;
  in.to = scratch + p.offsets_bytes + p.room_bytes;
  kernels.pack_image(in);
  int64_t step = 0;
  for (int64_t q = 0; q < p.groups_of_channels; ++q) {
    for (int64_t i = 0; i < p.h.kernel; ++i) {
      for (int64_t j = 0; j < p.w.kernel; ++j) {
        offsets[step++] = ((q * in.rows + i * p.h.dilation) * p.pitch + j * p.w.dilation) * 4;
      }
    }
  }
  kernels::WindowArgs g;
  g.filters = conv.filters;
  g.steps = p.steps;
  g.a = io[2] + group * conv.filters * kernels::igemm_row_bytes(kernels, p.steps * kernels.depth);
  g.image = in.to;
  g.offsets = offsets;
  g.rows = rows;
  g.width = p.w.out;
  g.row_bytes = p.pitch * 4;
  g.zero = p.is_signed ? int32_t{static_cast<int8_t>(in.zero)} : int32_t{in.zero};
  g.is_signed = p.is_signed;
  g.plane = p.h.out * p.w.out;
  g.c = reinterpret_cast<int32_t*>(io[0]) + image * conv.filters * g.plane + first * p.w.out;
  kernels.windows(g);
}

/// io: the sums, x, packed filters, the zero point of x or null, scratch.
void windows_step(const void* params, std::byte* const* io, const ExecContext& context) {
  const auto& p = *static_cast<const WindowsParams*>(params);
  for_tasks(context, p.conv.batch * p.conv.groups * p.blocks, p.slots,
            [&](int64_t task, int64_t slot) { windows_task(p, io, task, io[4] + slot * p.slot_bytes); });
}

bool is_zero(const Tensor& t) {
  const auto* bytes = static_cast<const std::byte*>(t.data);
  return std::all_of(bytes, bytes + t.bytes(), [](std::byte b) { return b == std::byte{}; });
}

/// The filters, their channels in groups of a step, behind each other for each tap.
Ref packed_filters(LowerContext& c, const IntegerConv& p, const Tensor& w, int64_t steps) {
  const auto& kernels = kernels::igemm_kernels();
  const int64_t rows = p.groups * p.filters, taps = p.window.kernel_elements(), k = steps * kernels.depth;
  const int64_t bytes = rows * kernels::igemm_row_bytes(kernels, k);
  const Packing packing{cat("igemm-windows-", taps), DType::kU8, bytes, cat("depth-", kernels.depth)};
  return c.packed({&w}, packing, [&](void* to) {
    std::vector<int8_t> row(static_cast<size_t>(k));
    for (int64_t r = 0; r < rows; ++r) {
      std::ranges::fill(row, int8_t{0});
      for (int64_t ch = 0; ch < p.channels; ++ch) {
        for (int64_t t = 0; t < taps; ++t) {
          const int64_t at = (ch / kernels.depth * taps + t) * kernels.depth + ch % kernels.depth;
          row[static_cast<size_t>(at)] = w.as<int8_t>()[(r * p.channels + ch) * taps + t];
        }
      }
      kernels.pack_a({row.data(), k, 1, true}, 1, k,
                     static_cast<std::byte*>(to) + r * kernels::igemm_row_bytes(kernels, k));
    }
  });
}

}  // namespace

Cost integer_windows_cost(const NodeContext& c, const IntegerConv& p, const ConvOperands& at) {
  const WindowDim &h = p.window.dim[1], &w = p.window.dim[2];
  if (p.window.rank > 2 || h.stride != 1 || w.stride != 1) return Cost::cannot("three dimensions, or a stride");
  if (p.window.kernel_elements() == 1) return Cost::cannot("a window of one pixel");
  if (p.channels == 1) return Cost::cannot("one channel a group");
  if (!c.input(at.w).constant || c.input(at.w).dtype != DType::kI8)
    return Cost::cannot("the filters are no constant of int8");
  if (c.has_input(at.w_zero) && !(c.input(at.w_zero).constant && is_zero(*c.input(at.w_zero).constant)))
    return Cost::cannot("the filters have a zero point that is not 0");
  const auto is_long = [](const WindowDim& d) {
    return std::max({reach_of(d), d.in, d.out, d.pad_begin}) > kLongestLine;
  };
  if (is_long(h) || is_long(w) || p.channels > kLongestLine ||
      static_cast<double>(row_bytes(p)) * static_cast<double>(reach_of(h) + kLeastRows) > kLargestBytes)
    return Cost::cannot("the rows of the image are too long");
  const int64_t images = p.batch * p.groups, depth = kernels::igemm_kernels().depth;
  // Sixteen outputs of a row at once: the last of them may be past its end.
  const double products = multiplied(images, p.filters, h.out, rounded(w.out, kernels::kIgemmColumns),
                                     rounded(p.channels, depth), p.window.kernel_elements());
  // As measured, a product takes two thirds of what it takes in the other way, whose windows are copied.
  return Cost(products / 150 + multiplied(images, rounded(p.channels, depth), p.window.in_elements()) / 4);
}

void lower_integer_windows(LowerContext& c, const IntegerConv& conv, Ref out, const ConvOperands& at) {
  const auto& kernels = kernels::igemm_kernels();
  WindowsParams p{};
  p.conv = conv;
  p.h = conv.window.dim[1];
  p.w = conv.window.dim[2];
  p.groups_of_channels = rounded(conv.channels, kernels.depth) / kernels.depth;
  p.steps = p.groups_of_channels * conv.window.kernel_elements();
  p.pitch = pitch_of(p.w);
  p.is_signed = c.input(at.x).dtype == DType::kI8;
  const int64_t images = conv.batch * conv.groups;
  const double products = multiplied(images, conv.filters, p.steps, kernels.depth, conv.window.out_elements());
  p.slots = products < kConvParallelProducts ? 1 : std::min(c.threads(), kMaxConvSlots);
  p.block =
      std::clamp<int64_t>(kImageBytes / row_bytes(conv) - reach_of(p.h), kLeastRows, std::max(p.h.out, kLeastRows));
  if (images < 2 * p.slots) {  // two tasks per thread at least
    const int64_t want = (2 * p.slots + images - 1) / images;
    p.block = std::min(p.block, std::max(kLeastRows, (p.h.out + want - 1) / want));
  }
  p.block = std::min(p.block, p.h.out);
  p.blocks = (p.h.out + p.block - 1) / p.block;
  p.in_rows = p.block + reach_of(p.h);
  p.offsets_bytes = rounded(p.steps * 8, 64);
  p.room_bytes = rounded(kernels.depth * p.pitch, 64);
  p.slot_bytes = p.offsets_bytes + p.room_bytes + p.in_rows * row_bytes(conv);
  const Ref weights = packed_filters(c, conv, *c.input(at.w).constant, p.steps);
  const Ref zero = c.has_input(at.x_zero) ? c.in(at.x_zero) : Ref{};
  const Ref scratch = c.scratch(static_cast<size_t>(p.slot_bytes) * static_cast<size_t>(p.slots));
  c.step(windows_step, p, {out, c.in(at.x), weights, zero, scratch}, products / 100);
}

}  // namespace inferkit
