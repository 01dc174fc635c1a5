#include "kernels/cpu/conv/conv.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

struct Geometry {
  int64_t channels;
  ConvDim dim[3];
  int64_t in() const { return dim[0].in * dim[1].in * dim[2].in; }
  int64_t out() const { return dim[0].out * dim[1].out * dim[2].out; }
  int64_t taps() const { return dim[0].kernel * dim[1].kernel * dim[2].kernel; }
};

ConvDim dim(int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t begin, int64_t end) {
  return {in, (in + begin + end - (kernel - 1) * dilation - 1) / stride + 1, kernel, stride, dilation, begin};
}

std::vector<Geometry> geometries() {
  std::vector<Geometry> out;
  for (const int64_t size : {1, 5, 7, 16, 17, 33, 70}) {
    for (const int64_t kernel : {1, 2, 3, 5}) {
      for (const int64_t stride : {1, 2, 3}) {
        for (const int64_t dilation : {1, 2}) {
          const int64_t pad = kernel * dilation / 2;
          if (size + pad < (kernel - 1) * dilation + 1) continue;
          out.push_back({2, {{}, dim(6, kernel, stride, dilation, 5, 4), dim(size, kernel, stride, dilation, pad, 0)}});
        }
      }
    }
  }
  out.push_back({3, {dim(4, 3, 1, 1, 1, 1), dim(5, 2, 2, 1, 0, 1), dim(6, 3, 1, 2, 2, 2)}});
  out.push_back({1, {{}, dim(40, 33, 1, 1, 0, 0), dim(39, 37, 1, 1, 0, 0)}});  // more taps than a table holds
  out.push_back({2, {{}, {}, dim(300, 25, 4, 1, 12, 12)}});
  return out;
}

/// Planes of one channel, with those that have a kernel of their own in every height of tile.
std::vector<Geometry> depthwise_geometries() {
  std::vector<Geometry> out;
  for (Geometry g : geometries()) {
    g.channels = 1;
    if (g.dim[0].kernel == 1 && g.taps() <= kMaxDepthwiseTaps) out.push_back(g);
  }
  for (const int64_t kernel : {3, 5, 7}) {
    for (const int64_t height : {3, 7, 14, 23, 60}) {
      for (const int64_t width : {4, 7, 16, 18, 50, 64}) {
        for (const int64_t down : {1, 2, 3}) {
          for (const int64_t stride : {1, 2}) {
            for (const int64_t pad : {int64_t{1}, kernel / 2, kernel}) {
              if (std::min(height, width) + 2 * pad < kernel) continue;
              out.push_back({1, {{}, dim(height, kernel, down, 1, pad, pad), dim(width, kernel, stride, 1, pad, pad)}});
            }
          }
        }
      }
    }
  }
  return out;
}

/// What tap `tap` of `channel` reads for output `pixel`; 0 in the padding.
template <class T>
T window_element(const Geometry& g, const std::vector<T>& x, int64_t channel, int64_t tap, int64_t pixel) {
  int64_t at = 0, scale = 1;
  for (int d = 2; d >= 0; --d) {
    const ConvDim& w = g.dim[d];
    const int64_t p = pixel % w.out * w.stride - w.pad_begin + tap % w.kernel * w.dilation;
    if (p < 0 || p >= w.in) return 0;
    at += p * scale;
    scale *= w.in;
    pixel /= w.out;
    tap /= w.kernel;
  }
  return x[static_cast<size_t>(channel * scale + at)];
}

}  // namespace

TEST(conv_pack_pixels_is_im2col) {
  for (const Isa isa : available_isas()) {
    for (const Geometry& g : geometries()) {
      const auto x = random_floats(static_cast<size_t>(g.channels * g.in()), 1);
      const int64_t k = g.channels * g.taps(), block = 48;
      for (int64_t first = 0; first < g.out(); first += block) {
        PackPixelsArgs args;
        args.x = x.data();
        args.channels = g.channels;
        for (int d = 0; d < 3; ++d) args.dim[d] = g.dim[d];
        args.first = first;
        args.count = std::min(block, g.out() - first);
        const int64_t panels = (args.count + 15) / 16;
        Guarded to(static_cast<size_t>(panels * k * 16 + 16));
        args.to = to.data();
        conv_kernels(isa).pack_pixels(args);
        CHECK(to.intact());
        bool right = true;
        for (int64_t pixel = 0; pixel < args.count; ++pixel) {
          for (int64_t i = 0; i < k; ++i) {
            const float want = window_element(g, x, i / g.taps(), i % g.taps(), first + pixel);
            right &= to[static_cast<size_t>((pixel / 16 * k + i) * 16 + pixel % 16)] == want;
          }
        }
        CHECK(right);
      }
    }
  }
}

TEST(conv_pack_pixels_in_double_is_im2col) {
  for (const Geometry& g : geometries()) {
    const auto floats = random_floats(static_cast<size_t>(g.channels * g.in()), 1);
    const std::vector<double> x(floats.begin(), floats.end());
    const int64_t k = g.channels * g.taps(), block = 24;
    for (int64_t first = 0; first < g.out(); first += block) {
      PackPixelsArgs64 args;
      args.x = x.data();
      args.channels = g.channels;
      for (int d = 0; d < 3; ++d) args.dim[d] = g.dim[d];
      args.first = first;
      args.count = std::min(block, g.out() - first);
      const int64_t panels = (args.count + 7) / 8;
      std::vector<double> to(static_cast<size_t>(panels * k * 8 + 1), -12345.5);
      args.to = to.data();
      pack_pixels64(args);
      bool right = to.back() == -12345.5;
      for (int64_t pixel = 0; pixel < panels * 8; ++pixel) {
        for (int64_t i = 0; i < k; ++i) {
          const double want = pixel < args.count ? window_element(g, x, i / g.taps(), i % g.taps(), first + pixel) : 0;
          right &= to[static_cast<size_t>((pixel / 8 * k + i) * 8 + pixel % 8)] == want;
        }
      }
      CHECK(right);
    }
  }
}

TEST(conv_depthwise_close_to_double_and_one_on_all_vectors) {
  for (const Geometry& g : depthwise_geometries()) {
    const auto x = random_floats(static_cast<size_t>(g.in()), 2);
    const auto weights = random_floats(static_cast<size_t>(g.taps()), 3);
    const int64_t block = g.dim[1].out % 2 ? 5 : g.dim[1].out;
    std::vector<std::vector<float>> results;
    for (const Isa isa : available_isas()) {
      Guarded y(static_cast<size_t>(g.out()));
      for (int64_t first = 0; first < g.dim[1].out; first += block) {
        DepthwiseArgs args;
        args.x = x.data();
        args.y = y.data();
        args.weights = weights.data();
        args.bias = 0.25f;
        args.h = g.dim[1];
        args.w = g.dim[2];
        args.first = first;
        args.rows = std::min(block, args.h.out - first);
        Guarded scratch(static_cast<size_t>(depthwise_scratch(args.h, args.w, args.rows)));
        args.scratch = scratch.data();
        conv_kernels(isa).depthwise(args);
        CHECK(scratch.intact());
      }
      CHECK(y.intact());
      bool right = true;
      for (int64_t pixel = 0; pixel < g.out(); ++pixel) {
        double want = 0.25, size = 0.25;
        for (int64_t t = 0; t < g.taps(); ++t) {
          const double v = static_cast<double>(weights[static_cast<size_t>(t)]) * window_element(g, x, 0, t, pixel);
          want += v;
          size += std::fabs(v);
        }
        right &= std::fabs(y[static_cast<size_t>(pixel)] - want) <= 0x1p-22 * size;
      }
      CHECK(right);
      results.emplace_back(y.data(), y.data() + g.out());
    }
    // The baseline has no FMA; the others must agree to the bit.
    for (size_t i = 2; i < results.size(); ++i) CHECK(same(results[1].data(), results[i].data(), results[1].size()));
  }
}

TEST(conv_depthwise_rows_do_not_depend_on_the_block) {
  const auto x = random_floats(40 * 37, 4), weights = random_floats(9, 5);
  for (const Isa isa : available_isas()) {
    std::vector<float> whole(40 * 37), parts(40 * 37), scratch(1 << 16);
    DepthwiseArgs args;
    args.x = x.data();
    args.weights = weights.data();
    args.h = dim(40, 3, 1, 1, 1, 1);
    args.w = dim(37, 3, 1, 1, 1, 1);
    args.scratch = scratch.data();
    args.rows = 40;
    args.y = whole.data();
    conv_kernels(isa).depthwise(args);
    args.y = parts.data();
    for (int64_t rows = 1, first = 0; first < 40; first += rows, rows = std::min<int64_t>(rows + 1, 40 - first)) {
      args.first = first;
      args.rows = rows;
      conv_kernels(isa).depthwise(args);
    }
    CHECK(same(whole.data(), parts.data(), whole.size()));
  }
}

// As in the GEMM: nine products of 1/16 beside a bias whose last place is 1/8.
TEST(conv_depthwise_small_sums_beside_a_large_bias) {
  for (const Isa isa : available_isas()) {
    const std::vector<float> x(5 * 40, 0.25f), weights(9, 0.25f);
    std::vector<float> y(3 * 38);
    DepthwiseArgs args;
    args.x = x.data();
    args.y = y.data();
    args.weights = weights.data();
    args.bias = 0x1p20f;
    args.h = {.in = 5, .out = 3, .kernel = 3};
    args.w = {.in = 40, .out = 38, .kernel = 3};
    args.rows = 3;
    Guarded scratch(static_cast<size_t>(depthwise_scratch(args.h, args.w, args.rows)));
    args.scratch = scratch.data();
    conv_kernels(isa).depthwise(args);
    for (const float v : y) CHECK_EQ(v, 0x1p20f + 0.5f);
  }
}
