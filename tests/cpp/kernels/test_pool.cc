#include "kernels/cpu/affine/affine.h"
#include "kernels/cpu/pool/pool.h"
#include "kernels/summation.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::kernels;
using namespace inferkit::testing;

namespace {

PoolDim dim(int64_t in, int64_t kernel, int64_t stride, int64_t dilation, int64_t begin, int64_t end) {
  return {in, (in + begin + end - (kernel - 1) * dilation - 1) / stride + 1, kernel, stride, dilation, begin, end};
}

/// Max and sum of a window, and how many taps an average counts.
struct Window {
  float max = -INFINITY;
  double sum = 0;
  int64_t count = 0;
};
Window window(const PoolArgs& a, const float* x, int64_t oh, int64_t ow) {
  Window out;
  for (int64_t i = 0; i < a.h.kernel; ++i) {
    for (int64_t j = 0; j < a.w.kernel; ++j) {
      const int64_t r = oh * a.h.stride - a.h.pad_begin + i * a.h.dilation;
      const int64_t c = ow * a.w.stride - a.w.pad_begin + j * a.w.dilation;
      const bool inside = r >= 0 && r < a.h.in && c >= 0 && c < a.w.in;
      out.count += a.include_pad ? r < a.h.in + a.h.pad_end && c < a.w.in + a.w.pad_end : inside;
      if (!inside) continue;
      out.max = std::max(out.max, x[r * a.w.in + c]);
      out.sum += x[r * a.w.in + c];
    }
  }
  return out;
}

}  // namespace

TEST(pool_any_window_and_one_on_all_tiers) {
  for (const int64_t size : {1, 6, 15, 16, 17, 40, 100}) {
    for (const int64_t kernel : {1, 2, 3, 5}) {
      for (const int64_t stride : {1, 2, 3, 7}) {
        for (const int64_t pad : {int64_t{0}, kernel / 2}) {
          const int64_t dilation = 1 + kernel % 2;
          if (size + 2 * pad < (kernel - 1) * dilation + 1) continue;
          PoolArgs args;
          args.h = dim(9, kernel, stride, dilation, pad, pad);
          args.w = dim(size, kernel, stride, dilation, pad, pad);
          args.include_pad = stride % 2 == 0;
          const auto x = random_floats(static_cast<size_t>(3 * 9 * size), 1);
          args.x = x.data();
          const int64_t out = args.h.out * args.w.out;
          std::vector<float> first;
          for (const Isa isa : available_isas()) {
            Guarded max(static_cast<size_t>(3 * out)), average(static_cast<size_t>(3 * out));
            args.y = max.data();
            pool_kernels(isa).max(args, 3);
            args.y = average.data();
            pool_kernels(isa).average(args, 3);
            CHECK(max.intact() && average.intact());
            bool right = true;
            for (int64_t i = 0; i < 3 * out; ++i) {
              const Window w = window(args, x.data() + i / out * 9 * size, i % out / args.w.out, i % args.w.out);
              const double mean = w.count == 0 ? 0 : w.sum / static_cast<double>(w.count);
              right &= max[static_cast<size_t>(i)] == w.max;
              right &= std::fabs(average[static_cast<size_t>(i)] - mean) <= 0x1p-20;
            }
            CHECK(right);
            if (first.empty()) first.assign(average.data(), average.data() + 3 * out);
            CHECK(same(first.data(), average.data(), first.size()));
          }
        }
      }
    }
  }
}

TEST(pool_average_of_long_windows_is_summed_in_chunks) {
  for (const auto& kernel : {std::pair<int64_t, int64_t>{300, 2}, {3, 300}, {150, 40}}) {
    const int64_t rows = kernel.first, columns = kernel.second;
    PoolArgs args;
    args.h = dim(rows + 2, rows, 1, 1, 0, 0);
    args.w = dim(columns + 20, columns, columns == 2 ? 2 : 1, 1, 0, 0);
    const auto x = random_floats(static_cast<size_t>(args.h.in * args.w.in), 1);
    args.x = x.data();
    const int64_t out = args.h.out * args.w.out;
    std::vector<float> y(static_cast<size_t>(out)), expected;
    const auto sum = [](int64_t n, auto&& term) {  // in chunks, each from its first term
      const int64_t chunk = sum_chunk(n);
      float total = 0;
      for (int64_t first = 0; first < n; first += chunk) {
        float part = term(first);
        for (int64_t k = first + 1; k < std::min(n, first + chunk); ++k) part += term(k);
        total = first == 0 ? part : total + part;
      }
      return total;
    };
    for (int64_t i = 0; i < out; ++i) {
      const float* from = args.x + i / args.w.out * args.w.in + i % args.w.out * args.w.stride;
      expected.push_back(
          sum(columns, [&](int64_t k) { return sum(rows, [&](int64_t j) { return from[j * args.w.in + k]; }); }) /
          static_cast<float>(rows * columns));
    }
    for (const Isa isa : available_isas()) {
      args.y = y.data();
      pool_kernels(isa).average(args, 1);
      CHECK(same(y.data(), expected.data(), y.size()));
    }
  }
}

TEST(pool_of_blocks_has_the_bits_of_planes) {
  constexpr int64_t kBlocks = 2, kSide = 16;
  struct Case {
    PoolDim h, w;
    bool include_pad;
  };
  std::vector<Case> cases = {
      {dim(14, 2, 2, 1, 0, 0), dim(14, 2, 2, 1, 0, 0), false},
      {dim(11, 3, 2, 1, 1, 1), dim(13, 3, 2, 1, 1, 1), true},
      {dim(9, 5, 1, 1, 2, 2), dim(20, 5, 1, 1, 2, 2), false},
      {dim(9, 2, 3, 3, 1, 0), dim(10, 3, 2, 2, 2, 1), true},
      {dim(1, 1, 1, 1, 0, 0), dim(33, 3, 2, 1, 1, 0), false},
      {dim(320, 300, 7, 1, 0, 0), dim(3, 2, 1, 1, 0, 0), false},
      {dim(3, 3, 1, 1, 1, 1), dim(330, 300, 5, 1, 4, 3), true},
      {dim(2, 2, 1, 1, 4, 4), dim(2, 2, 1, 1, 4, 4), false},
  };
  cases.push_back({{7, 4, 2, 2, 1, 0, 0}, {7, 4, 2, 2, 1, 0, 0}, true});  // ceil_mode: the last window leaves the image
  for (const Case& c : cases) {
    PoolArgs args;
    args.h = c.h;
    args.w = c.w;
    args.include_pad = c.include_pad;
    const int64_t in = c.h.in * c.w.in, out = c.h.out * c.w.out;
    auto planes = random_floats(static_cast<size_t>(kBlocks * kSide * in), 3);
    for (size_t i = 0; i < planes.size(); i += 97) planes[i] = i % 2 ? NAN : i % 3 ? -INFINITY : -0.0f;
    std::vector<float> blocks(planes.size());
    for (int64_t p = 0; p < kBlocks * kSide; ++p) {
      for (int64_t i = 0; i < in; ++i)
        blocks[static_cast<size_t>((p / kSide * in + i) * kSide + p % kSide)] = planes[static_cast<size_t>(p * in + i)];
    }
    for (const Isa isa : available_isas()) {
      const PoolKernels& kernels = pool_kernels(isa);
      for (const bool average : {false, true}) {
        std::vector<float> expected(static_cast<size_t>(kBlocks * kSide * out));
        args.x = planes.data();
        args.y = expected.data();
        (average ? kernels.average : kernels.max)(args, kBlocks * kSide);
        Guarded found(expected.size());
        args.x = blocks.data();
        args.y = found.data();
        const auto fn = average ? kernels.average_of_blocks : kernels.max_of_blocks;
        const int64_t rows = kBlocks * c.h.out, part = rows / 3;
        fn(args, part, rows);
        fn(args, 0, part);
        CHECK(found.intact());
        bool right = true;
        for (int64_t p = 0; p < kBlocks * kSide; ++p) {
          for (int64_t i = 0; i < out; ++i)
            right &= same(found[static_cast<size_t>((p / kSide * out + i) * kSide + p % kSide)],
                          expected[static_cast<size_t>(p * out + i)]);
        }
        CHECK(right);
      }
    }
  }
}

TEST(pool_max_keeps_nan) {
  for (const Isa isa : available_isas()) {
    for (int64_t at = 0; at < 40; ++at) {
      std::vector<float> x(40, 1.0f), y(38);
      x[static_cast<size_t>(at)] = NAN;
      PoolArgs args;
      args.x = x.data();
      args.y = y.data();
      args.w = dim(40, 3, 1, 1, 0, 0);
      pool_kernels(isa).max(args, 1);
      for (int64_t i = 0; i < 38; ++i) CHECK_EQ(std::isnan(y[static_cast<size_t>(i)]), i <= at && at < i + 3);
    }
  }
}

TEST(pool_max_of_pairs_keeps_nan) {
  for (const Isa isa : available_isas()) {
    for (int64_t at = 0; at < 2 * 45; ++at) {
      std::vector<float> x(2 * 45, 1.0f), y(22);
      x[static_cast<size_t>(at)] = NAN;
      PoolArgs args;
      args.x = x.data();
      args.y = y.data();
      args.h = dim(2, 2, 2, 1, 0, 0);
      args.w = dim(45, 2, 2, 1, 0, 0);
      pool_kernels(isa).max(args, 1);
      for (int64_t i = 0; i < 22; ++i) CHECK_EQ(std::isnan(y[static_cast<size_t>(i)]), i == at % 45 / 2);
    }
  }
}

TEST(affine_close_to_double_and_one_on_all_vectors) {
  for (size_t n = 0; n < 70; ++n) {
    const auto x = random_floats(n, 1), a = random_floats(n, 2), b = random_floats(n, 3);
    std::vector<std::vector<float>> results;
    for (const Isa isa : available_isas()) {
      Guarded one(n), each(n);
      affine_kernels(isa).scalar(x.data(), one.data(), static_cast<int64_t>(n), 0.7f, -0.3f);
      affine_kernels(isa).vector(x.data(), each.data(), static_cast<int64_t>(n), a.data(), b.data());
      CHECK(one.intact() && each.intact());
      for (size_t i = 0; i < n; ++i) {
        CHECK(std::fabs(one[i] - (0.7f * static_cast<double>(x[i]) - 0.3f)) <= 0x1p-23);
        CHECK(std::fabs(each[i] - (static_cast<double>(a[i]) * x[i] + b[i])) <= 0x1p-23);
      }
      results.emplace_back(each.data(), each.data() + n);
    }
    for (size_t i = 2; i < results.size(); ++i) CHECK(same(results[1].data(), results[i].data(), n));
  }
}
