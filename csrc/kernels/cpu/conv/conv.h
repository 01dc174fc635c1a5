// Convolution over channels-first images of float: packing windows into GEMM's panels (implicit im2col), and the
// depthwise case, where each channel has its own small kernel. Padding is zeros.
#pragma once
#include <stddef.h>
#include <stdint.h>

namespace inferkit {
enum class Isa : uint8_t;
}

namespace inferkit::kernels {

struct ConvDim {
  int64_t in = 1, out = 1, kernel = 1, stride = 1, dilation = 1, pad_begin = 0;
};

/// Output pixels [first, first + count) of one image become ceil(count / 16) panels: element (k, pixel 16 p + j) goes
/// to to[(p * k_elements + k) * 16 + j], where k runs over channels, then the taps of the window. Pixels past `count`
/// are zeros. In double a panel has 8 pixels.
template <class T>
struct PackPixelsArgsOf {
  const T* x = nullptr;  // channels planes of dim[0].in x dim[1].in x dim[2].in
  T* to = nullptr;
  int64_t channels = 0;
  ConvDim dim[3];
  int64_t first = 0, count = 0;
};
using PackPixelsArgs = PackPixelsArgsOf<float>;
using PackPixelsArgs64 = PackPixelsArgsOf<double>;

/// The same in double, on any tier.
void pack_pixels64(const PackPixelsArgs64& args);

/// A padded plane, its rows and columns split by stride, so that the windows of neighbouring output pixels are
/// neighbours: column j of row q of phase (u, v) is input row q * h.stride + u - h.pad_begin, column
/// j * w.stride + v - w.pad_begin, or zero outside, and goes to to[(u * w_phases + v) * plane + q * pitch + j]. Up to
/// 15 floats past the `width` of each row are overwritten, then by the next row: `plane` has room for those of the
/// last. Where `pitch` is less than `width`, what lies between must be padding, on the left of the next row, too.
struct SplitPlaneArgs {
  const float* x = nullptr;
  float* to = nullptr;
  ConvDim h, w;
  int64_t h_phases = 1, w_phases = 1;  // up to the strides
  int64_t first = 0, rows = 0;         // rows q of every phase
  int64_t width = 0, pitch = 0, plane = 0;
};

inline constexpr int64_t kMaxDepthwiseTaps = 128;

/// Rows [first, first + rows) of one output plane: y = bias + the window's taps (in order) times `weights`.
struct DepthwiseArgs {
  const float* x = nullptr;  // the plane
  float* y = nullptr;        // the output plane, whole
  const float* weights = nullptr;
  float bias = 0;
  ConvDim h, w;
  int64_t first = 0, rows = 0;
  float* scratch = nullptr;  // depthwise_scratch floats
};

/// Floats that a depthwise call over `rows` rows needs: the padded input rows, columns split by stride. (static: every
/// tier has its own copy.)
static constexpr int64_t depthwise_row(const ConvDim& w) {
  const int64_t reach = (w.kernel - 1) * w.dilation;
  return (w.out + reach / w.stride + 1 + 15) / 16 * 16;
}
static constexpr int64_t depthwise_scratch(const ConvDim& h, const ConvDim& w, int64_t rows) {
  return ((rows - 1) * h.stride + (h.kernel - 1) * h.dilation + 1) * depthwise_row(w) * w.stride + 64;
}

/// A block of fewer output rows is not worth its copy.
inline constexpr int64_t kLeastDepthwiseRows = 4;
/// Is a convolution of that many channels a group for the depthwise kernel? It has one channel a group, and its padded
/// rows, split by stride, are not far more than the image. Its sums differ from the others' in one thing: a bias is
/// always added, if need be zero, which makes 0 of -0.
static inline bool is_depthwise(int64_t channels, int64_t groups, int64_t spatial_rank, const ConvDim& h,
                                const ConvDim& w) {
  if (channels != 1 || groups < 2 || spatial_rank > 2 || h.kernel * w.kernel > kMaxDepthwiseTaps) return false;
  const double row = static_cast<double>(depthwise_row(w)) * static_cast<double>(w.stride);
  const double reach = static_cast<double>((h.kernel - 1) * h.dilation + 1);
  const double few = static_cast<double>(h.out < kLeastDepthwiseRows ? h.out : kLeastDepthwiseRows);
  const double all = static_cast<double>(h.out), step = static_cast<double>(h.stride);
  const double image = 4 * static_cast<double>(h.in * w.in), most = image > 0x1p20 ? image : 0x1p20;
  return (few * step + reach) * row < most && (all * step + reach) * row < 0x1p50;
}

/// Where sums end: as Unary::kClip has it, ReLU being that to infinity.
struct Bounds {
  bool bounded = false;
  float low = 0, high = 0;
};

/// Sixteen channels, or fewer, of one image: y = bias + the window's taps (in order) times `weights`. Without gaps
/// between the columns of the window.
struct DepthwiseChannelsArgs {
  const float* x = nullptr;        // `channels` planes
  float* y = nullptr;              // as many
  const float* weights = nullptr;  // [taps][16]
  const float* bias = nullptr;     // 16, or none
  int64_t channels = 16;
  ConvDim h, w;
  Bounds bounds;
  bool x_pixels = false, y_pixels = false;  // no planes: pixels of sixteen floats
  float* scratch = nullptr;                 // 16 floats for each pixel of a plane of x and of y
};

/// Some blocks of sixteen filters, at all pixels of a grid of output rows: y = f(sum + bias + residual). Element k of
/// the sum for the pixel in column j of row r is x[offsets[k] + r * x_row_step + x_step * j] by weights[(block * k + k)
/// * 16 + lane]; it goes to y[block * y_block_step + r * y_row_step + 16 j + lane].
struct ConvBlocksArgs {
  const float* x = nullptr;
  const int32_t* offsets = nullptr;
  int64_t k = 0, k_chunk = 1;  // as in gemm.h
  const float* weights = nullptr;
  const float* bias = nullptr;  // 16 for each block, or none
  Bounds bounds;
  int64_t filter_blocks = 0, rows = 0, width = 0, x_row_step = 0;
  int64_t x_step = 16;  // or 1: planes
  float* y = nullptr;
  int64_t y_block_step = 0, y_row_step = 0;
  const float* residual = nullptr;  // as y lies, or none
};

/// Sixteen channels of a padded image, or fewer and zeros, pixel by pixel: as SplitPlaneArgs has it, with sixteen
/// floats for each of its elements, and nothing past the width.
struct BlocksCopyArgs {
  const float* x = nullptr;  // planes, or pixels of sixteen floats
  bool pixels = false;
  int64_t channels = 16;
  float* to = nullptr;
  ConvDim h, w;
  int64_t h_phases = 1, w_phases = 1;
  int64_t first = 0, rows = 0;
  int64_t width = 0, plane = 0;  // plane: elements of a phase
};

/// Pixels of sixteen floats become rows of `channels` planes.
struct BlocksToPlanesArgs {
  const float* x = nullptr;
  int64_t pixels = 0, channels = 16;
  float* y = nullptr;
  int64_t plane = 0;
};

struct ConvKernels {
  const char* (*compiled_isa)();
  void (*pack_pixels)(const PackPixelsArgs& args);
  void (*split_plane)(const SplitPlaneArgs& args);
  void (*depthwise)(const DepthwiseArgs& args);
  void (*depthwise_channels)(const DepthwiseChannelsArgs& args);
  void (*blocks)(const ConvBlocksArgs& args);
  void (*blocks_copy)(const BlocksCopyArgs& args);
  void (*blocks_to_planes)(const BlocksToPlanesArgs& args);
};

const ConvKernels& conv_kernels();  // of the active tier
const ConvKernels& conv_kernels(Isa isa);

}  // namespace inferkit::kernels
