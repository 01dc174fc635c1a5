// Kernels that move elements, on the host.
#include <numeric>

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

}  // namespace
