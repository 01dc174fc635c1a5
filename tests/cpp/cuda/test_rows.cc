// Softmax, normalisations and reductions on the host, to the bit as the CPU's tiers.
#include "kernels/cpu/row/row.h"
#include "kernels/cpu/vmath/vmath.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::testing;
namespace cuda = inferkit::kernels::cuda;
using kernels::Reduce;

namespace {

constexpr int64_t kRows = 5;
constexpr int64_t kLengths[] = {1, 3, 16, 17, 31, 32, 33, 63, 64, 65, 128, 200, 384, 513, 1000, 1024, 1025};
constexpr int64_t kLong = 2 * 64 * 256 + 77;  // more than one block of chunks

cuda_on_host::Grid rows_grid(uint64_t seed) {
  return {.blocks = {2}, .threads = {cuda::kRowThreads}, .shared_bytes = 0, .seed = seed};
}

/// body(x, n, isa) for rows of every length, of ordinary values and of wild ones.
template <class F>
void for_rows(F body) {
  const FloatEnvironment ours;
  for (const Isa isa : fusing_isas()) {
    for (const int64_t n : kLengths) {
      if (!body(random_floats(static_cast<size_t>(kRows * n), 1, -8, 8), n, isa)) return;
      if (!body(wild_floats(static_cast<size_t>(kRows * n), 2), n, isa)) return;
    }
    if (!body(random_floats(static_cast<size_t>(kRows * kLong), 3), kLong, isa)) return;
  }
}

TEST(softmax_has_the_bits_of_the_tiers) {
  for_rows([](const std::vector<float>& x, int64_t n, Isa isa) {
    for (const bool log : {false, true}) {
      std::vector<float> want(x.size());
      for (int64_t r = 0; r < kRows; ++r) {
        const float* from = x.data() + r * n;
        float* to = want.data() + r * n;
        if (log)
          kernels::row_kernels(isa).log_softmax(from, to, n);
        else
          kernels::row_kernels(isa).softmax(from, to, n, 1, nullptr);
      }
      for (const uint64_t seed : kSeeds) {
        if (n == kLong && seed > 1) continue;
        std::vector<float> y = x;  // in place
        const cuda::SoftmaxParams p{y.data(), y.data(), kRows, n, 1, log};
        cuda_on_host::launch(cuda::Kernel::softmax_rows, rows_grid(seed), &p);
        if (!same_values(y.data(), want.data(), y.size(), cat(log ? "log " : "", "softmax of ", n))) return false;
      }
    }
    return true;
  });
}

// The greatest of a short row is found in an order of its own, which matters only to the signs of zeros.
TEST(softmax_of_zeros_has_the_bits_of_the_tiers) {
  const FloatEnvironment ours;
  constexpr float kValues[] = {0.0f, -0.0f, 1e-41f, -1e-41f, -INFINITY, -90.0f, -1.0f};
  std::mt19937 draw(7);
  for (const int64_t n : {1, 2, 3, 17, 40, 130}) {
    for (int round = 0; round < 60; ++round) {
      std::vector<float> x(static_cast<size_t>(n)), want(x.size()), y(x.size());
      const size_t kinds = 2 + draw() % 6;
      for (float& v : x) v = kValues[draw() % 16 == 0 ? draw() % kinds : 4 + draw() % 2];
      x[draw() % x.size()] = kValues[draw() % 4];
      if (round % 2 == 0) x[draw() % x.size()] = kValues[draw() % 4];
      for (const Isa isa : fusing_isas()) {
        for (const bool log : {false, true}) {
          if (log)
            kernels::row_kernels(isa).log_softmax(x.data(), want.data(), n);
          else
            kernels::row_kernels(isa).softmax(x.data(), want.data(), n, 1, nullptr);
          const cuda::SoftmaxParams p{x.data(), y.data(), 1, n, 1, log};
          cuda_on_host::launch(cuda::Kernel::softmax_rows, rows_grid(1), &p);
          CHECK(std::memcmp(y.data(), want.data(), y.size() * sizeof(float)) == 0);
        }
      }
    }
  }
}

TEST(softmax_of_columns_is_that_of_rows) {
  const FloatEnvironment ours;
  constexpr int64_t kInner = 6, kN = 70;
  const auto x = random_floats(2 * kN * kInner, 4, -5, 5);
  std::vector<float> y(x.size());
  const cuda::SoftmaxParams p{x.data(), y.data(), 2, kN, kInner, false};
  cuda_on_host::launch(cuda::Kernel::softmax_rows, rows_grid(2), &p);
  for (int64_t outer = 0; outer < 2; ++outer) {
    for (int64_t inner = 0; inner < kInner; ++inner) {
      std::vector<float> row, got;
      for (int64_t i = 0; i < kN; ++i) {
        row.push_back(x[static_cast<size_t>((outer * kN + i) * kInner + inner)]);
        got.push_back(y[static_cast<size_t>((outer * kN + i) * kInner + inner)]);
      }
      for (const Isa isa : fusing_isas()) {
        std::vector<float> want(row.size());
        kernels::row_kernels(isa).softmax(row.data(), want.data(), kN, 1, nullptr);
        CHECK(same_values(got.data(), want.data(), want.size(), "column"));
      }
    }
  }
}

TEST(normalisations_have_the_bits_of_the_tiers) {
  for_rows([](const std::vector<float>& x, int64_t n, Isa isa) {
    const auto scale = random_floats(static_cast<size_t>(n), 8), bias = random_floats(static_cast<size_t>(n), 9);
    for (const bool center : {true, false}) {
      for (const bool affine : {true, false}) {
        std::vector<float> want(x.size());
        for (int64_t r = 0; r < kRows; ++r) {
          kernels::NormArgs args;
          args.x = x.data() + r * n;
          args.y = want.data() + r * n;
          args.scale = affine ? scale.data() : nullptr;
          args.bias = affine ? bias.data() : nullptr;
          args.n = n;
          args.epsilon = 1e-5f;
          (center ? kernels::row_kernels(isa).layer_norm : kernels::row_kernels(isa).rms_norm)(args);
        }
        std::vector<float> y(x.size());
        const cuda::NormParams p{
            x.data(), affine ? scale.data() : nullptr, affine ? bias.data() : nullptr, y.data(), kRows, n, 1e-5f,
            center};
        for (const uint64_t seed : kSeeds) {
          if (n == kLong && seed > 1) continue;
          cuda_on_host::launch(cuda::Kernel::norm_rows, rows_grid(seed), &p);
          if (!same_values(y.data(), want.data(), y.size(), cat(center ? "layer" : "rms", " norm of ", n)))
            return false;
        }
      }
    }
    return true;
  });
}

TEST(reductions_have_the_bits_of_the_tiers) {
  for_rows([](const std::vector<float>& x, int64_t n, Isa isa) {
    for (int i = 0; i < kernels::kReduceCount; ++i) {
      std::vector<float> want(kRows), y(kRows);
      for (int64_t r = 0; r < kRows; ++r) {
        want[static_cast<size_t>(r)] = kernels::row_kernels(isa).reduce[i](x.data() + r * n, n);
      }
      const cuda::ReduceParams p{
          x.data(), y.data(), line(kRows, n), line(n), static_cast<Reduce>(i), cuda::ReduceParams::After::kNothing};
      for (const uint64_t seed : kSeeds) {
        if (n == kLong && seed > 1) continue;
        cuda_on_host::launch(cuda::Kernel::reduce_rows, rows_grid(seed), &p);
        if (!same_values(y.data(), want.data(), kRows, cat("reduction ", i, " of ", n))) return false;
      }
    }
    return true;
  });
}

TEST(what_comes_after_a_sum_is_the_lane_function) {
  const FloatEnvironment ours;
  const auto x = random_floats(kRows * 50, 6, 0, 4);
  for (const Isa isa : fusing_isas()) {
    using After = cuda::ReduceParams::After;
    for (const auto& [after, op] :
         {std::pair{After::kRoot, kernels::Unary::kSqrt}, {After::kLog, kernels::Unary::kLog}}) {
      std::vector<float> want(kRows), y(kRows);
      for (size_t r = 0; r < kRows; ++r) want[r] = kernels::row_kernels(isa).reduce[0](x.data() + r * 50, 50);
      kernels::vmath_kernels(isa).unary[static_cast<size_t>(op)](want.data(), want.data(), kRows, 0, 0);
      const cuda::ReduceParams p{x.data(), y.data(), line(kRows, 50), line(50), Reduce::kSum, after};
      cuda_on_host::launch(cuda::Kernel::reduce_rows, rows_grid(1), &p);
      CHECK(same_values(y.data(), want.data(), kRows, "after a sum"));
    }
  }
}

TEST(any_axes_are_reduced_in_the_order_of_a_row) {
  const FloatEnvironment ours;
  // [3, 4, 5] over the first and the last.
  const auto x = random_floats(60, 3);
  std::vector<float> y(4);
  cuda::ReduceParams p{x.data(), y.data(), line(4, 5), {}, Reduce::kSum, cuda::ReduceParams::After::kNothing};
  p.reduced = {15, {3, 5}, {{20, 1}}, 2};
  cuda_on_host::launch(cuda::Kernel::reduce_rows, rows_grid(1), &p);
  for (size_t j = 0; j < 4; ++j) {
    std::vector<float> row;
    for (size_t i = 0; i < 3; ++i) {
      for (size_t k = 0; k < 5; ++k) row.push_back(x[i * 20 + j * 5 + k]);
    }
    for (const Isa isa : fusing_isas()) {
      const float want = kernels::row_kernels(isa).reduce[0](row.data(), 15);
      CHECK(same_values(&y[j], &want, 1, "sum"));
    }
  }
}

}  // namespace
