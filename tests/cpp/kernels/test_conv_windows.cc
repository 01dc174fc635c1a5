// A split image and the GEMM over it against the windows packed one by one: the same bits.
#include "kernels/cpu/conv/conv.h"
#include "kernels/cpu/gemm/gemm.h"
#include "platform/aligned_alloc.h"
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
  int64_t pixels() const { return h.out * w.out; }
  int64_t reach(const ConvDim& d) const { return (d.kernel - 1) * d.dilation / d.stride; }
  /// Columns of padding that two rows have in common.
  int64_t shared() const {
    const int64_t right = w.out + reach(w) - w.pad_begin - w.in;
    return w.stride > 1 || h.out == 1 ? 0 : std::max<int64_t>(0, std::min({w.pad_begin, right, reach(w)}));
  }
  int64_t width() const { return w.out + reach(w); }
  int64_t pitch() const { return width() - shared(); }
  int64_t plane(int64_t rows) const { return (rows + reach(h)) * pitch() + shared() + 16; }
  int64_t phases() const { return h.stride * w.stride; }
};

std::vector<Layer> layers() {
  std::vector<Layer> out;
  for (const int64_t filters : {1, 3, 13, 32}) {
    for (const int64_t stride : {1, 2, 3}) {
      for (const int64_t kernel : {1, 2, 3, 5}) {
        for (const int64_t width : {5, 16, 33}) {
          const int64_t dilation = width == 33 ? 2 : 1;
          out.push_back({3, filters, dim(11, kernel, stride, 1, 1), dim(width, kernel, stride, dilation, kernel / 2)});
        }
      }
    }
    out.push_back({16, filters, dim(14, 3, 1, 1, 1), dim(14, 3, 1, 1, 1)});
    out.push_back({1, filters, dim(1, 1, 1, 1, 0), dim(500, 58, 3, 1, 20)});
    out.push_back({2, filters, dim(9, 9, 1, 1, 0), dim(3, 3, 1, 1, 0)});  // one pixel
  }
  return out;
}

std::vector<int32_t> offsets_of(const Layer& l, int64_t plane) {
  std::vector<int32_t> out;
  for (int64_t c = 0; c < l.channels; ++c) {
    for (int64_t i = 0; i < l.h.kernel; ++i) {
      for (int64_t j = 0; j < l.w.kernel; ++j) {
        const int64_t y = i * l.h.dilation, x = j * l.w.dilation;
        const int64_t phase = (c * l.h.stride + y % l.h.stride) * l.w.stride + x % l.w.stride;
        out.push_back(static_cast<int32_t>(phase * plane + y / l.h.stride * l.pitch() + x / l.w.stride));
      }
    }
  }
  return out;
}

std::vector<float> packed_answer(Isa isa, const Layer& l, const std::vector<float>& x,
                                 const std::vector<float>& weights, const std::vector<float>& bias, int64_t chunk) {
  const auto packed = make_aligned<float>(packed_b_elements(l.k(), l.pixels()) + 16);
  PackPixelsArgs pack;
  pack.x = x.data();
  pack.to = packed.get();
  pack.channels = l.channels;
  pack.dim[1] = l.h;
  pack.dim[2] = l.w;
  pack.count = l.pixels();
  conv_kernels(isa).pack_pixels(pack);
  std::vector<float> y(static_cast<size_t>(l.filters * l.pixels()));
  GemmArgs g;
  g.m = l.filters, g.n = l.pixels(), g.k = g.lda = l.k();
  g.a = weights.data();
  use_packed_b(g, packed.get());
  g.c = y.data(), g.ldc = l.pixels();
  if (!bias.empty()) g.bias = bias.data(), g.bias_kind = BiasKind::kPerRow;
  g.act = bias.empty() ? Unary::kIdentity : Unary::kRelu;
  g.k_chunk = chunk;
  gemm_kernels(isa).gemm(g);
  return y;
}

}  // namespace

TEST(conv_windows_have_the_bits_of_packed_pixels) {
  uint32_t seed = 0;
  for (const Layer& l : layers()) {
    const int64_t parts = int64_t{1} << (++seed % 3), chunk = std::max<int64_t>(1, (l.k() + parts - 1) / parts);
    const auto x = random_floats(static_cast<size_t>(l.channels * l.h.in * l.w.in), seed);
    const auto weights = random_floats(static_cast<size_t>(l.filters * l.k()), seed + 1);
    const auto bias = random_floats(seed % 2 ? static_cast<size_t>(l.filters) : 0, seed + 2);
    const int64_t block = seed % 5 ? l.h.out : 4, plane = l.plane(block);
    const auto offsets = offsets_of(l, plane);
    for (const Isa isa : available_isas()) {
      Guarded y(static_cast<size_t>(l.filters * l.pixels()));
      for (int64_t first = 0; first < l.h.out; first += block) {
        const int64_t rows = std::min(block, l.h.out - first);
        // NaN where the split writes nothing: what lies between the rows must not reach the answer.
        std::vector<float> split(static_cast<size_t>(l.channels * l.phases() * plane + 16), NAN);
        SplitPlaneArgs s;
        s.h = l.h, s.w = l.w;
        s.h_phases = l.h.stride, s.w_phases = l.w.stride;
        s.first = first, s.rows = rows + l.reach(l.h);
        s.width = l.width(), s.pitch = l.pitch(), s.plane = plane;
        for (int64_t c = 0; c < l.channels; ++c) {
          s.x = x.data() + c * l.h.in * l.w.in;
          s.to = split.data() + c * l.phases() * plane;
          conv_kernels(isa).split_plane(s);
        }
        WindowGemmArgs g;
        g.m = l.filters, g.k = g.lda = l.k();
        g.n = (rows - 1) * l.pitch() + l.w.out;
        g.a = weights.data();
        g.b = split.data();
        g.offsets = offsets.data();
        g.pitch = l.pitch(), g.width = l.w.out;
        g.c = y.data() + first * l.w.out, g.ldc = l.pixels();
        if (!bias.empty()) g.bias = bias.data(), g.rectify = true;
        g.k_chunk = chunk;
        gemm_kernels(isa).gemm_windows(g);
      }
      const auto want = packed_answer(isa, l, x, weights, bias, chunk);
      CHECK(y.intact());
      CHECK(same(want.data(), y.data(), want.size()));
    }
  }
}

TEST(conv_split_plane_is_the_padded_plane) {
  for (const int64_t stride : {1, 2, 3}) {
    for (const int64_t phases : {int64_t{1}, stride}) {
      for (const int64_t in : {1, 9, 32, 50}) {
        const ConvDim h = dim(7, 3, stride, 1, 2), w = dim(in, 3, stride, 1, 3);
        const auto x = random_floats(static_cast<size_t>(7 * in), 3);
        const int64_t pitch = w.out + 2, rows = h.out + 2, plane = rows * pitch + 16;
        for (const Isa isa : available_isas()) {
          Guarded to(static_cast<size_t>(stride * phases * plane));
          SplitPlaneArgs s;
          s.x = x.data();
          s.to = to.data();
          s.h = h, s.w = w;
          s.h_phases = stride, s.w_phases = phases;
          s.rows = rows, s.width = s.pitch = pitch, s.plane = plane;
          conv_kernels(isa).split_plane(s);
          bool right = to.intact();
          for (int64_t at = 0; at < stride * phases * rows * pitch; ++at) {
            const int64_t j = at % pitch, q = at / pitch % rows, phase = at / pitch / rows;
            const int64_t row = q * stride + phase / phases - 2, column = j * stride + phase % phases - 3;
            const bool inside = row >= 0 && row < 7 && column >= 0 && column < in;
            const float want = inside ? x[static_cast<size_t>(row * in + column)] : 0;
            right &= to[static_cast<size_t>(phase * plane + q * pitch + j)] == want;
          }
          CHECK(right);
        }
      }
    }
  }
}
