// Convolution over blocks of sixteen channels against the sums written out, to the bit.
#include "kernels/cpu/conv/conv.h"
#include "kernels/summation.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

ConvDim dim(int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
  return {in, (in + 2 * pad - (kernel - 1) * dilation - 1) / stride + 1, kernel, stride, dilation, pad};
}

struct Layer {
  int64_t channels, filters;
  ConvDim h, w;
  int64_t k() const { return channels * h.kernel * w.kernel; }
  int64_t rows() const { return h.out + (h.kernel - 1) * h.dilation / h.stride; }
  int64_t width() const { return w.out + (w.kernel - 1) * w.dilation / w.stride; }
  int64_t plane() const { return rows() * width(); }
  int64_t phases() const { return h.stride * w.stride; }
  int64_t in_blocks() const { return (channels + 15) / 16; }
  int64_t out_blocks() const { return (filters + 15) / 16; }
  /// The element of a plane that tap (i, j) of pixel (row, column) reads, or -1 in the padding.
  int64_t place(int64_t row, int64_t column, int64_t i, int64_t j) const {
    const int64_t y = row * h.stride - h.pad_begin + i * h.dilation;
    const int64_t x = column * w.stride - w.pad_begin + j * w.dilation;
    return y < 0 || y >= h.in || x < 0 || x >= w.in ? -1 : y * w.in + x;
  }
};

std::vector<Layer> layers() {
  std::vector<Layer> out;
  for (const int64_t width : {1, 2, 3, 5, 6, 7, 9, 10, 13, 14, 15, 29}) {
    for (const int64_t filters : {5, 16, 33, 64}) {
      const int64_t kernel = width < 3 ? 1 : 3;
      out.push_back({20, filters, dim(5, kernel, 1, 1, kernel / 2), dim(width, kernel, 1, 1, kernel / 2)});
    }
  }
  for (const int64_t stride : {1, 2, 3}) {
    for (const int64_t dilation : {1, 2})
      out.push_back({3, 40, dim(11, 3, stride, dilation, 2), dim(12, 4, stride, dilation, 1)});
  }
  out.push_back({1, 16, dim(1, 1, 1, 1, 0), dim(300, 58, 3, 1, 20)});
  out.push_back({300, 16, dim(3, 3, 1, 1, 1), dim(4, 3, 1, 1, 1)});  // K does not fit one block of it
  return out;
}

size_t at(int64_t i) { return static_cast<size_t>(i); }

/// Chunk by chunk, tap by tap, as kernels/summation.h has it.
std::vector<float> written_out(const Layer& l, const std::vector<float>& x, const std::vector<float>& weights,
                               const std::vector<float>* bias, const std::vector<float>* more, int64_t chunk,
                               bool fused) {
  std::vector<float> y;
  for (int64_t f = 0; f < l.filters; ++f) {
    for (int64_t pixel = 0; pixel < l.h.out * l.w.out; ++pixel) {
      float total = 0, part = 0;
      for (int64_t k = 0; k < l.k(); ++k) {
        const int64_t j = k % l.w.kernel, i = k / l.w.kernel % l.h.kernel, c = k / l.w.kernel / l.h.kernel;
        const int64_t place = l.place(pixel / l.w.out, pixel % l.w.out, i, j);
        const float v = place < 0 ? 0 : x[at(c * l.h.in * l.w.in + place)], w = weights[at(f * l.k() + k)];
        part = fused ? std::fma(v, w, part) : v * w + part;
        if ((k + 1) % chunk && k + 1 < l.k()) continue;
        total = k < chunk ? part : total + part;
        part = 0;
      }
      if (bias) total += (*bias)[at(f)];
      if (more) total += (*more)[y.size()];
      y.push_back(bias ? std::clamp(total, 0.0f, 1.0f) : total);
    }
  }
  return y;
}

/// The image as pixels of sixteen channels, without padding.
std::vector<float> pixels_of(const Layer& l, const std::vector<float>& x) {
  const int64_t area = l.h.in * l.w.in;
  std::vector<float> out(at(l.in_blocks() * area * 16));
  for (int64_t c = 0; c < l.channels; ++c) {
    for (int64_t i = 0; i < area; ++i) out[at((c / 16 * area + i) * 16 + c % 16)] = x[at(c * area + i)];
  }
  return out;
}

/// How the image lies, and its copy.
enum class Lies { kPixels, kPlanes, kPlanesThroughout };

std::vector<float> answer(Isa isa, const Layer& l, const std::vector<float>& x, Lies lies,
                          const std::vector<float>& weights, const std::vector<float>* bias,
                          const std::vector<float>* more, int64_t chunk) {
  const auto& kernels = conv_kernels(isa);
  const bool planes = lies == Lies::kPlanesThroughout;
  const int64_t area = l.h.in * l.w.in, step = planes ? 1 : 16, parts = planes ? l.channels : l.in_blocks();
  const int64_t plane = l.plane() + (planes ? 15 : 0), block = l.phases() * plane * step;
  Guarded copy(at(parts * block));
  for (int64_t c = 0; planes && c < l.channels; ++c) {
    SplitPlaneArgs a{x.data() + c * area, copy.data() + c * block, l.h, l.w, l.h.stride, l.w.stride};
    a.rows = l.rows();
    a.width = a.pitch = l.width();
    a.plane = plane;
    kernels.split_plane(a);
  }
  for (int64_t b = 0; !planes && b < l.in_blocks(); ++b) {
    BlocksCopyArgs a;
    a.pixels = lies == Lies::kPixels;
    a.channels = std::min<int64_t>(16, l.channels - 16 * b);
    a.x = x.data() + b * 16 * area;
    a.to = copy.data() + b * block;
    a.h = l.h;
    a.w = l.w;
    a.h_phases = l.h.stride;
    a.w_phases = l.w.stride;
    a.width = l.width();
    a.plane = plane;
    for (int64_t first = 0; first < l.rows(); first += 4) {
      a.first = first;
      a.rows = std::min<int64_t>(4, l.rows() - first);
      kernels.blocks_copy(a);
    }
  }
  CHECK(copy.intact());
  std::vector<int32_t> offsets;
  for (int64_t k = 0; k < l.k(); ++k) {
    const int64_t j = k % l.w.kernel * l.w.dilation, i = k / l.w.kernel % l.h.kernel * l.h.dilation;
    const int64_t c = k / l.w.kernel / l.h.kernel;
    const int64_t phase = (c / step * l.h.stride + i % l.h.stride) * l.w.stride + j % l.w.stride;
    const int64_t pixel = phase * plane + i / l.h.stride * l.width() + j / l.w.stride;
    offsets.push_back(static_cast<int32_t>(pixel * step + c % step));
  }
  std::vector<float> packed(at(l.out_blocks() * l.k() * 16)), padded(at(l.out_blocks() * 16));
  for (int64_t f = 0; f < l.filters; ++f) {
    for (int64_t k = 0; k < l.k(); ++k) packed[at((f / 16 * l.k() + k) * 16 + f % 16)] = weights[at(f * l.k() + k)];
    if (bias) padded[at(f)] = (*bias)[at(f)];
  }
  const int64_t pixel_count = l.h.out * l.w.out;
  Guarded sums(at(l.out_blocks() * pixel_count * 16));
  ConvBlocksArgs a;
  a.x = copy.data();
  a.offsets = offsets.data();
  a.k = l.k();
  a.k_chunk = chunk;
  a.weights = packed.data();
  if (bias) a.bias = padded.data();
  if (bias) a.bounds = {true, 0, 1};
  a.filter_blocks = l.out_blocks();
  a.rows = l.h.out;
  a.width = l.w.out;
  a.x_step = step;
  a.x_row_step = l.width() * step;
  a.y = sums.data();
  a.y_block_step = pixel_count * 16;
  a.y_row_step = l.w.out * 16;
  std::vector<float> residual(at(l.out_blocks() * pixel_count * 16));
  if (more) {
    for (int64_t f = 0; f < l.filters; ++f) {
      for (int64_t i = 0; i < pixel_count; ++i)
        residual[at((f / 16 * pixel_count + i) * 16 + f % 16)] = (*more)[at(f * pixel_count + i)];
    }
    a.residual = residual.data();
  }
  kernels.blocks(a);
  CHECK(sums.intact());
  Guarded y(at(l.filters * pixel_count));
  for (int64_t b = 0; b < l.out_blocks(); ++b) {
    kernels.blocks_to_planes({sums.data() + b * pixel_count * 16, pixel_count,
                              std::min<int64_t>(16, l.filters - 16 * b), y.data() + b * 16 * pixel_count, pixel_count});
  }
  CHECK(y.intact());
  return {y.data(), y.data() + l.filters * pixel_count};
}

}  // namespace

TEST(conv_blocks_give_the_bits_of_the_sums_written_out) {
  for (const Isa isa : available_isas()) {
    for (const Layer& l : layers()) {
      const auto x = random_floats(at(l.channels * l.h.in * l.w.in), 1);
      const auto weights = random_floats(at(l.filters * l.k()), 2), bias = random_floats(at(l.filters), 3);
      const int64_t chunk = sum_chunk(l.k());
      const bool fused = isa != Isa::kBaseline;
      const auto more = random_floats(at(l.filters * l.h.out * l.w.out), 4);
      const std::vector<float>* const none = nullptr;
      for (const auto* b : {&bias, none}) {
        for (const auto* r : {&more, none}) {
          const auto want = written_out(l, x, weights, b, r, chunk, fused);
          const auto gives = [&](const std::vector<float>& image, Lies lies) {
            return same(want.data(), answer(isa, l, image, lies, weights, b, r, chunk).data(), want.size());
          };
          CHECK(gives(x, Lies::kPlanes));
          CHECK(gives(x, Lies::kPlanesThroughout));
          CHECK(gives(pixels_of(l, x), Lies::kPixels));
        }
      }
    }
  }
}
