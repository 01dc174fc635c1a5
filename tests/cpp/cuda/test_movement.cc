// Kernels that move elements, on the host.
#include <algorithm>
#include <numeric>
#include <random>

#include "support.h"

using namespace inferkit;
using namespace inferkit::testing;
namespace cuda = inferkit::kernels::cuda;

namespace {

template <class T>
void check_transpose() {
  constexpr size_t kRows = 5, kColumns = 7;
  std::vector<T> x(kRows * kColumns), y(x.size());
  std::iota(x.begin(), x.end(), T{1});
  cuda::CopyParams p{x.data(), y.data(), {}, sizeof(T)};
  p.nest = {kRows * kColumns, {kColumns, kRows}, {{1, kColumns}, {kRows, 1}}, 2};
  for (const uint64_t seed : kSeeds) {
    cuda_on_host::launch(cuda::Kernel::copy_strided, {.blocks = {2}, .threads = {8}, .seed = seed}, &p);
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t c = 0; c < kColumns; ++c) CHECK(y[c * kRows + r] == x[r * kColumns + c]);
    }
  }
}

TEST(a_copy_transposes_elements_of_any_width) {
  check_transpose<uint8_t>();
  check_transpose<uint16_t>();
  check_transpose<float>();
  check_transpose<int64_t>();
}

TEST(a_copy_writes_where_it_should_and_nowhere_else) {
  const std::vector<float> x{1, 2, 3, 4};
  std::vector<float> y(8, -1);
  cuda::CopyParams p{x.data(), y.data() + 1, {}, 4};
  p.nest = {4, {2, 2}, {{2, 1}, {4, 1}}, 2};
  cuda_on_host::launch(cuda::Kernel::copy_strided, {.threads = {32}}, &p);
  CHECK((y == std::vector<float>{-1, 1, 2, -1, -1, 3, 4, -1}));
}

// ---- Units of 16 bytes ----------------------------------------------------------------------------------------------

/// [outer, rows, run] to [outer, run of another row...]: rows of `run` elements change places, as Transpose has them.
template <class T>
void check_runs(int64_t run, size_t skip, int32_t unit) {
  constexpr int64_t kOuter = 3, kRows = 5;
  const auto n = static_cast<size_t>(kOuter * kRows * run);
  std::vector<T> x(n + skip), y(n + skip, T{9});
  for (size_t i = 0; i < n; ++i) x[i + skip] = static_cast<T>(i * 7 + 1);
  cuda::CopyParams p{x.data() + skip, y.data() + skip, {}, sizeof(T)};
  p.nest = {static_cast<int64_t>(n), {kRows, kOuter, run}, {{run, kRows * run, 1}, {kOuter * run, run, 1}}, 3};
  cuda::widen(p);
  CHECK_EQ(p.width, unit);
  CHECK_EQ(p.nest.n * unit, static_cast<int64_t>(n * sizeof(T)));
  for (const unsigned blocks : {1u, 40u}) {
    std::ranges::fill(y, T{9});
    cuda_on_host::launch(cuda::Kernel::copy_strided, {.blocks = {blocks}, .threads = {32}, .seed = blocks}, &p);
    for (int64_t r = 0; r < kRows; ++r) {
      for (int64_t o = 0; o < kOuter; ++o) {
        for (int64_t i = 0; i < run; ++i) {
          const auto to = static_cast<size_t>((r * kOuter + o) * run + i) + skip;
          CHECK(y[to] == x[static_cast<size_t>((o * kRows + r) * run + i) + skip]);
        }
      }
    }
  }
  for (size_t i = 0; i < skip; ++i) CHECK(y[i] == T{9});
}

TEST(runs_are_copied_in_the_widest_units_that_they_and_their_addresses_allow) {
  check_runs<float>(8, 0, 16);
  check_runs<float>(6, 0, 8);
  check_runs<float>(7, 0, 4);
  check_runs<float>(8, 1, 4);
  check_runs<float>(8, 2, 8);
  check_runs<uint8_t>(48, 0, 16);
  check_runs<uint8_t>(10, 0, 2);
  check_runs<uint8_t>(12, 1, 1);
  check_runs<uint16_t>(4, 4, 8);
  check_runs<int64_t>(2, 0, 16);
  check_runs<int64_t>(3, 0, 8);
}

TEST(strides_backwards_and_of_zero_are_followed_with_32_bits_as_with_64) {
  std::vector<float> x(24), want(48), got(48);
  std::iota(x.begin(), x.end(), 0.0f);
  cuda::CopyParams p{x.data() + 20, want.data(), {}, 4};
  p.nest = {48, {2, 6, 4}, {{0, -4, 1}, {24, 4, 1}}, 3};  // rows from the last to the first, twice
  cuda_on_host::launch(cuda::Kernel::copy_strided, {.threads = {32}}, &p);
  p.y = got.data();
  cuda::prepare(p.nest);
  CHECK(p.nest.is_small);
  cuda_on_host::launch(cuda::Kernel::copy_strided, {.threads = {32}}, &p);
  CHECK(got == want);
  CHECK_EQ(got[0], 20.0f);
  CHECK_EQ(got[47], 3.0f);
  std::ranges::fill(got, -1.0f);
  cuda::widen(p);
  CHECK_EQ(p.width, 16);
  cuda_on_host::launch(cuda::Kernel::copy_strided, {.threads = {32}}, &p);
  CHECK(got == want);
}

TEST(a_divisor_divides_all_that_is_small) {
  const auto check = [](uint32_t i, int64_t d) {
    const cuda::Divisor by = cuda::divisor_of(d);
    const auto got = static_cast<uint32_t>(uint64_t{2 * i} * by.multiplier >> 32) >> by.shift;
    if (got == i / d) return true;
    fail(__FILE__, __LINE__, cat(i, " / ", d, " is ", i / d, " and not ", got));
    return false;
  };
  std::mt19937 draw(1);
  std::vector<int64_t> divisors{cuda::kSmall - 1, cuda::kSmall - 2, (1 << 30) + 1, 1 << 30, (1 << 30) - 1};
  for (int64_t d = 1; d < 2000; ++d) divisors.push_back(d);
  for (int i = 0; i < 2000; ++i) divisors.push_back(1 + draw() % (cuda::kSmall - 1));
  for (const int64_t d : divisors) {
    const auto most = static_cast<uint32_t>(cuda::kSmall - 1), least = static_cast<uint32_t>(d);
    // The last that gives a quotient, and the first that gives the next, go wrong first.
    for (int k = 0; k < 20; ++k) {
      const uint32_t at = k == 0 ? most / least * least : draw() % (most / least + 1) * least;
      if (!check(at, d) || (at > 0 && !check(at - 1, d)) || !check(most - draw() % 3, d)) return;
    }
  }
}

TEST(what_needs_more_than_31_bits_is_walked_with_64) {
  const auto small = [](int64_t n, int64_t stride) {
    auto nest = line(n, stride);
    cuda::prepare(nest);
    return nest.is_small;
  };
  CHECK(small(cuda::kSmall - 1, 1));
  CHECK(!small(cuda::kSmall, 1));
  CHECK(!small(cuda::kSmall, 0));
  CHECK(small(3, (int64_t{1} << 30) - 1));
  CHECK(!small(3, int64_t{1} << 30));
  CHECK(!small(3, -(int64_t{1} << 30)));
  CHECK(!small(3, int64_t{1} << 62));
  CHECK(!small(0, 1));
}

// ---- Tiles ----------------------------------------------------------------------------------------------------------

struct Turned {
  int64_t outer, rows, columns;  // x is [outer, columns, rows], y [outer, rows, columns]
};

template <class T>
std::vector<T> turned(const Turned& s, const std::vector<T>& x, cuda_on_host::Grid grid) {
  std::vector<T> y(x.size(), T{9});
  const int64_t area = s.rows * s.columns;
  cuda::CopyParams copy{x.data(), y.data(), {}, sizeof(T)};
  copy.nest = {s.outer * area, {s.outer, s.rows, s.columns}, {{area, 1, s.rows}, {area, s.columns, 1}}, 3};
  cuda::TransposeParams p{};
  CHECK(cuda::transposes(copy, p));
  grid.threads = {cuda::kMoveThreads};
  grid.shared_bytes = cuda::transpose_bytes(p.width);
  cuda_on_host::launch(cuda::Kernel::transpose, grid, &p);
  return y;
}
template <class T>
std::vector<T> numbered(const Turned& s) {
  std::vector<T> x(static_cast<size_t>(s.outer * s.rows * s.columns));
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(i * 7 + 1);
  return x;
}

template <class T>
void check_tiles() {
  for (const Turned& s : {Turned{1, 32, 32}, {3, 16, 50}, {2, 33, 65}, {1, 97, 16}, {2, 64, 31}}) {
    const auto x = numbered<T>(s);
    for (const uint64_t seed : kSeeds) {
      for (const unsigned blocks : {1u, 40u}) {
        const auto y = turned(s, x, {.blocks = {blocks}, .seed = seed});
        for (int64_t o = 0; o < s.outer; ++o) {
          for (int64_t r = 0; r < s.rows; ++r) {
            for (int64_t c = 0; c < s.columns; ++c) {
              const T got = y[static_cast<size_t>((o * s.rows + r) * s.columns + c)];
              if (got == x[static_cast<size_t>((o * s.columns + c) * s.rows + r)]) continue;
              return fail(__FILE__, __LINE__, cat("element ", o, ",", r, ",", c, " of ", s.rows, " x ", s.columns));
            }
          }
        }
      }
    }
  }
}

TEST(tiles_turn_elements_of_any_width) {
  check_tiles<uint8_t>();
  check_tiles<uint16_t>();
  check_tiles<float>();
  check_tiles<int64_t>();
}

TEST(tiles_that_are_turned_without_one_of_their_barriers_are_wrong_with_every_seed) {
  const Turned s{2, 64, 64};
  const auto x = numbered<float>(s), want = turned(s, x, {});
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    CHECK(turned(s, x, {.seed = seed}) == want);
    for (const unsigned drop : {0u, 1u}) CHECK(turned(s, x, {.seed = seed, .drop_every = 2, .drop = drop}) != want);
  }
}

TEST(what_is_narrow_or_keeps_its_runs_is_not_turned_by_tiles) {
  cuda::TransposeParams out{};
  const auto turns = [&](const cuda::Nest<2>& nest, int32_t width = 4) {
    return cuda::transposes({nullptr, nullptr, nest, width}, out);
  };
  CHECK(turns({64 * 64, {64, 64}, {{1, 64}, {64, 1}}, 2}));
  CHECK(!turns({64 * 8, {64, 8}, {{1, 64}, {8, 1}}, 2}));
  CHECK(!turns({8 * 64, {8, 64}, {{1, 8}, {64, 1}}, 2}));
  CHECK(!turns({64 * 64, {64, 64}, {{128, 1}, {64, 1}}, 2}));
  CHECK(!turns({64 * 64, {64, 64}, {{1, 64}, {64, 1}}, 2}, 16));
  // The run may be any dimension; the others are walked.
  CHECK(turns({16 * 2 * 3 * 32, {16, 2, 3, 32}, {{1, 16 * 96, 16 * 32, 16}, {192, 96, 32, 1}}, 4}));
  CHECK_EQ(out.rows, 16);
  CHECK_EQ(out.columns, 32);
  CHECK_EQ(out.tiles.n, 6);
  CHECK_EQ(out.tiles.rank, 4);
  CHECK_EQ(out.y_row, 192);
  CHECK_EQ(out.x_column, 16);
  // In eight dimensions, too.
  cuda::Nest<2> eight{512 * 64, {32, 2, 2, 2, 2, 2, 2, 16}, {{1}, {1024}}, 8};
  int64_t x_stride = 32 * 16, y_stride = 16;
  for (int d = 6; d > 0; --d, x_stride *= 2, y_stride *= 2) {
    eight.strides[0][d] = x_stride;
    eight.strides[1][d] = y_stride;
  }
  eight.strides[0][7] = 32;
  eight.strides[1][7] = 1;
  CHECK(turns(eight));
  CHECK_EQ(out.tiles.rank, 8);
  CHECK_EQ(out.tiles.n, 64);
}

// ---- Pick and Gather ------------------------------------------------------------------------------------------------

TEST(a_pick_takes_each_dimension_from_where_its_table_says) {
  const std::vector<float> x{1, 2, 3, 4, 5, 6};  // [2, 3]
  const std::vector<int64_t> index{-1, 1, 0, 2, 2, -1, 0};
  const float fill = 9;
  std::vector<float> y(12, NAN);
  cuda::PickParams p{};
  p.x = x.data();
  p.index = index.data();
  p.fill = &fill;
  p.y = y.data();
  p.n = 12;
  p.rank = 2;
  p.width = 4;
  p.dims[0] = 3;
  p.dims[1] = 4;
  p.strides[0] = 3;
  p.strides[1] = 1;
  p.table[1] = 3;
  for (const uint64_t seed : kSeeds) {
    cuda_on_host::launch(cuda::Kernel::pick, {.blocks = {2}, .threads = {4}, .seed = seed}, &p);
    CHECK((y == std::vector<float>{9, 9, 9, 9, 6, 6, 9, 4, 3, 3, 9, 1}));
  }
  p.fill = nullptr;
  cuda_on_host::launch(cuda::Kernel::pick, {.blocks = {1}, .threads = {32}}, &p);
  CHECK_EQ(y[0], 0.0f);
}

template <class I>
std::vector<float> gathered(const std::vector<float>& table, const std::vector<I>& indices, uint32_t& fault) {
  constexpr int64_t kRow = 3, kDim = 4;
  std::vector<float> y(indices.size() * kRow, NAN);
  const cuda::GatherParams p{
      table.data(),  indices.data(), y.data(), &fault, 1, kDim, static_cast<int64_t>(indices.size()), kRow, 6, 4,
      sizeof(I) == 8};
  cuda_on_host::launch(cuda::Kernel::gather_rows, {.blocks = {2}, .threads = {4}}, &p);
  return y;
}

TEST(gather_takes_rows_and_reports_an_index_that_is_out_of_range) {
  std::vector<float> table(12);
  std::iota(table.begin(), table.end(), 0.0f);
  uint32_t fault = 0;
  CHECK((gathered<int64_t>(table, {2, -1}, fault) == std::vector<float>{6, 7, 8, 9, 10, 11}));
  CHECK((gathered<int32_t>(table, {0, -4}, fault) == std::vector<float>{0, 1, 2, 0, 1, 2}));
  CHECK_EQ(fault, 0u);
  CHECK((gathered<int64_t>(table, {1, 4}, fault) == std::vector<float>{3, 4, 5, 0, 0, 0}));
  CHECK_EQ(fault, 7u);  // step 6
  fault = 3;
  gathered<int64_t>(table, {-5}, fault);
  CHECK_EQ(fault, 3u);  // the first one stays
}

TEST(gather_moves_rows_in_units_as_wide_as_they_are) {
  constexpr int64_t kOuter = 3, kDim = 5, kCount = 7;
  for (const int64_t row : {1, 2, 3, 4, 6, 8, 20}) {
    for (const size_t skip : {0u, 1u, 2u}) {
      std::vector<float> x(static_cast<size_t>(kOuter * kDim * row) + skip);
      std::iota(x.begin(), x.end(), 0.0f);
      std::vector<float> y(static_cast<size_t>(kOuter * kCount * row) + skip, -1);
      const std::vector<int32_t> indices{4, 0, -1, 3, 9, 3, -5};
      uint32_t fault = 0;
      cuda::GatherParams p{};
      p.x = x.data() + skip;
      p.indices = indices.data();
      p.y = y.data() + skip;
      p.fault = &fault;
      p.outer = kOuter;
      p.dim = kDim;
      p.count = kCount;
      p.row_units = row;
      p.width = 4;
      cuda::widen(p);
      CHECK(p.is_small);
      CHECK_EQ(p.width * p.row_units, 4 * row);
      CHECK_EQ(p.width, skip == 1 || row % 2 != 0 ? 4 : skip == 2 || row % 4 != 0 ? 8 : 16);
      cuda_on_host::launch(cuda::Kernel::gather_rows, {.blocks = {2}, .threads = {32}}, &p);
      CHECK_EQ(fault, 1u);
      for (int64_t o = 0; o < kOuter; ++o) {
        for (int64_t k = 0; k < kCount; ++k) {
          const int64_t index = indices[static_cast<size_t>(k)], from = index < 0 ? index + kDim : index;
          for (int64_t i = 0; i < row; ++i) {
            const float got = y[static_cast<size_t>((o * kCount + k) * row + i) + skip];
            CHECK_EQ(got, from >= kDim ? 0.0f : x[static_cast<size_t>((o * kDim + from) * row + i) + skip]);
          }
        }
      }
    }
  }
}

}  // namespace
