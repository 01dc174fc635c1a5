// Convolutions of bytes that read their windows in a packed image, against sums written down one by one.
#include "kernels/cpu/igemm/igemm.h"
#include "platform/aligned_alloc.h"
#include "platform/isa.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

std::vector<const IgemmKernels*> all_kernels() {
  std::vector<const IgemmKernels*> out;
  for (const Isa isa : available_isas()) {
    const IsaFeatures all = available_features(isa), tiles = IsaFeature::kAmxInt8;
    for (const IsaFeatures features : {IsaFeatures(), all.without(tiles), all}) {
      if (const auto& one = igemm_kernels(isa, features); out.empty() || &one != out.back()) out.push_back(&one);
    }
  }
  return out;
}

struct Problem {
  int64_t channels, filters, height, width, kernel_h, kernel_w, pad_top, pad_left, pad_bottom, pad_right;
  bool is_signed;
  uint8_t zero;

  int64_t out_height() const { return height + pad_top + pad_bottom - kernel_h + 1; }
  int64_t out_width() const { return width + pad_left + pad_right - kernel_w + 1; }
  int32_t value(uint8_t byte) const { return is_signed ? int32_t{static_cast<int8_t>(byte)} : int32_t{byte}; }

  /// One output, in 64 bits: the sums of a kernel wrap at 32, which none of these reaches.
  int64_t expected(const std::vector<uint8_t>& x, const std::vector<int8_t>& w, int64_t f, int64_t oh,
                   int64_t ow) const {
    int64_t sum = 0;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t i = 0; i < kernel_h; ++i) {
        for (int64_t j = 0; j < kernel_w; ++j) {
          const int64_t row = oh + i - pad_top, column = ow + j - pad_left;
          if (row < 0 || row >= height || column < 0 || column >= width) continue;
          const auto weight = w[static_cast<size_t>(((f * channels + c) * kernel_h + i) * kernel_w + j)];
          sum += int64_t{weight} * (value(x[static_cast<size_t>((c * height + row) * width + column)]) - value(zero));
        }
      }
    }
    return sum;
  }

  void check(const IgemmKernels& kernels, uint32_t seed) const {
    std::mt19937 random(seed);
    std::vector<uint8_t> x(static_cast<size_t>(channels * height * width));
    std::vector<int8_t> w(static_cast<size_t>(filters * channels * kernel_h * kernel_w));
    for (auto& v : x) v = seed % 3 == 0 ? static_cast<uint8_t>(is_signed ? 128 : 255) : static_cast<uint8_t>(random());
    for (auto& v : w) v = seed % 3 == 0 ? int8_t{-128} : static_cast<int8_t>(random());
    const int64_t depth = kernels.depth, groups = (channels + depth - 1) / depth, taps = kernel_h * kernel_w;
    const int64_t steps = groups * taps, k = steps * depth;
    const auto a = make_aligned<std::byte>(static_cast<size_t>(filters * igemm_row_bytes(kernels, k)));
    for (int64_t f = 0; f < filters; ++f) {
      std::vector<int8_t> row(static_cast<size_t>(k));
      for (int64_t c = 0; c < channels; ++c) {
        for (int64_t t = 0; t < taps; ++t)
          row[static_cast<size_t>((c / depth * taps + t) * depth + c % depth)] =
              w[static_cast<size_t>((f * channels + c) * taps + t)];
      }
      kernels.pack_a({row.data(), k, 1, true}, 1, k, a.get() + f * igemm_row_bytes(kernels, k));
    }
    const int64_t units = (out_width() + 15) / 16, rows = out_height() + kernel_h - 1;
    const int64_t pitch = (std::max(units * 16 + kernel_w - 1, width + pad_left) + 15) / 16 * 16;
    // Blocks of exactly the bytes that they may take, so that a sanitizer sees any other.
    const auto image = make_aligned<std::byte>(static_cast<size_t>(groups * rows * pitch * 4));
    const auto room = make_aligned<std::byte>(static_cast<size_t>(depth * pitch));
    ImageArgs in;
    in.x = x.data();
    in.channels = channels, in.height = height, in.width = width;
    in.first = -pad_top, in.rows = rows, in.pitch = pitch, in.pad = pad_left;
    in.zero = zero, in.is_signed = is_signed;
    in.to = image.get(), in.room = room.get();
    kernels.pack_image(in);
    std::vector<int64_t> offsets;
    for (int64_t q = 0; q < groups; ++q) {
      for (int64_t t = 0; t < taps; ++t) offsets.push_back(((q * rows + t / kernel_w) * pitch + t % kernel_w) * 4);
    }
    constexpr int32_t kUntouched = 0x5a5a5a5a;
    const int64_t plane = out_height() * out_width() + 3;
    std::vector<int32_t> c(static_cast<size_t>(filters * plane), kUntouched);
    WindowArgs g;
    g.filters = filters, g.steps = steps;
    g.a = a.get(), g.image = image.get(), g.offsets = offsets.data();
    g.rows = out_height(), g.width = out_width(), g.row_bytes = pitch * 4;
    g.zero = value(zero), g.is_signed = is_signed;
    g.c = c.data(), g.plane = plane;
    kernels.windows(g);
    int64_t wrong = 0;
    for (int64_t f = 0; f < filters; ++f) {
      for (int64_t i = 0; i < plane; ++i) {
        const int32_t found = c[static_cast<size_t>(f * plane + i)];
        wrong += i < out_height() * out_width() ? found != expected(x, w, f, i / out_width(), i % out_width())
                                                : found != kUntouched;
      }
    }
    CHECK_EQ(wrong, 0);
  }
};

}  // namespace

TEST(windows_of_bytes_sum_what_they_cover) {
  const Problem problems[] = {
      {1, 1, 1, 1, 1, 1, 0, 0, 0, 0, false, 0},      {3, 16, 12, 20, 3, 3, 1, 1, 1, 1, false, 128},
      {4, 12, 9, 16, 3, 3, 1, 1, 1, 1, true, 0xf0},  {5, 13, 7, 33, 1, 3, 0, 2, 0, 0, false, 3},
      {16, 32, 14, 14, 3, 3, 1, 1, 1, 1, true, 7},   {8, 25, 6, 64, 5, 5, 2, 2, 2, 2, false, 255},
      {2, 3, 4, 3, 3, 3, 2, 2, 2, 2, true, 128},     {7, 5, 30, 5, 4, 2, 0, 0, 3, 0, false, 77},
      {6, 36, 5, 130, 2, 1, 0, 0, 0, 0, false, 200}, {1, 4, 10, 9, 3, 3, 0, 0, 0, 0, true, 5},
  };
  uint32_t seed = 0;
  for (const Problem& p : problems) {
    for (const IgemmKernels* kernels : all_kernels()) p.check(*kernels, seed);
    ++seed;
  }
}

TEST(windows_of_bytes_for_every_number_of_filters_and_of_outputs) {
  uint32_t seed = 1;
  for (const IgemmKernels* kernels : all_kernels()) {
    for (int64_t filters = 1; filters <= 26; ++filters)
      Problem{3, filters, 3, 18, 2, 3, 0, 1, 1, 1, (filters & 1) != 0, 9}.check(*kernels, seed++);
    for (int64_t width = 1; width <= 70; width += 3)
      Problem{4, 3, 5, width, 3, 1, 1, 0, 1, 0, (width & 1) != 0, 250}.check(*kernels, seed++);
  }
}
