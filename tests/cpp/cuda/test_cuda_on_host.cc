// The emulator itself: what it shows, and what it would miss.
#include <stdexcept>

#include "launch.h"
#include "platform/thread_pool.h"
#include "support.h"

using namespace inferkit;
using namespace inferkit::testing;
using cuda_on_host::Grid;
using cuda_on_host::launch;

namespace {

constexpr unsigned kThreads = 64;
constexpr int kSteps = 3;

/// Each thread passes a number to its neighbour through shared memory, kSteps times.
void pass_on(int* out, bool first_barrier, bool second_barrier) {
  int* const shared = static_cast<int*>(cuda_on_host::shared_memory());
  const unsigned t = threadIdx.x;
  int value = static_cast<int>(t);
  for (int i = 0; i < kSteps; ++i) {
    shared[t] = value;
    if (first_barrier) __syncthreads();
    value = shared[(t + 1) % kThreads];
    if (second_barrier) __syncthreads();
  }
  out[t] = value;
}

bool passes(uint64_t seed, bool first_barrier, bool second_barrier) {
  std::vector<int> out(kThreads);
  launch({.blocks = {}, .threads = {kThreads}, .shared_bytes = kThreads * sizeof(int), .seed = seed},
         [&] { pass_on(out.data(), first_barrier, second_barrier); });
  for (unsigned t = 0; t < kThreads; ++t) {
    if (out[t] != static_cast<int>((t + kSteps) % kThreads)) return false;
  }
  return true;
}

TEST(a_barrier_that_is_missing_fails_with_every_seed) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    if (!passes(seed, true, true)) fail(__FILE__, __LINE__, cat("with both barriers: wrong for seed ", seed));
    if (passes(seed, false, true)) fail(__FILE__, __LINE__, cat("without the first barrier: right for seed ", seed));
    if (passes(seed, true, false)) fail(__FILE__, __LINE__, cat("without the second barrier: right for seed ", seed));
  }
}

TEST(a_copy_is_there_once_its_group_has_been_awaited_and_perhaps_before) {
  const float from[] = {1, 2};
  int early = 0, late = 0, both_late = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    launch({.threads = {1}, .shared_bytes = 3 * sizeof(float), .seed = seed}, [&] {
      auto* const shared = static_cast<float*>(cuda_on_host::shared_memory());
      cuda_on_host::begin_copy(shared, from, sizeof(float));
      cuda_on_host::close_copies();
      cuda_on_host::begin_copy(shared + 1, from + 1, sizeof(float));
      cuda_on_host::begin_copy(shared + 2, nullptr, sizeof(float));
      cuda_on_host::close_copies();
      for (int i = 0; i < 3; ++i) ++(std::isnan(shared[i]) ? late : early);
      cuda_on_host::await_copies(1);
      CHECK(shared[0] == 1);
      both_late += std::isnan(shared[1]) && std::isnan(shared[2]);  // they are not of the group before
      cuda_on_host::await_copies(0);
      CHECK(shared[1] == 2 && shared[2] == 0);
    });
  }
  CHECK(early > 10 && late > 10 && both_late > 0);
}

std::string error_of(const Grid& grid, const FunctionRef<void()>& body) {
  try {
    launch(grid, body);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(a_barrier_that_some_threads_never_reach_is_a_deadlock) {
  const std::string error = error_of({.threads = {kThreads}, .seed = 7}, [] {
    if (threadIdx.x == 3) {
      while (__ballot_sync(~0u, 1) != 0) {  // its warp is at the barrier
      }
    }
    __syncthreads();
  });
  CHECK(error.find("63 of 64 threads wait at a barrier") != std::string::npos);
  CHECK(error.find("seed 7") != std::string::npos);
}

TEST(a_write_past_shared_memory_is_found) {
  const std::string error =
      error_of({.threads = {1}, .shared_bytes = 8}, [] { static_cast<char*>(cuda_on_host::shared_memory())[8] = 1; });
  CHECK(error.find("past the shared memory of 8 bytes") != std::string::npos);
}

TEST(shared_memory_begins_as_nan_in_every_block) {
  launch({.blocks = {3}, .threads = {1}, .shared_bytes = 16}, [] {
    float* const shared = static_cast<float*>(cuda_on_host::shared_memory());
    for (int i = 0; i < 4; ++i) CHECK(std::isnan(shared[i]));
    for (int i = 0; i < 4; ++i) shared[i] = 1;
  });
}

TEST(a_load_that_is_not_aligned_is_found) {
  alignas(16) float values[8] = {};
  const std::string error =
      error_of({.threads = {1}}, [&] { cuda_on_host::check_alignment(values + 1, sizeof(float4)); });
  CHECK(error.find("16 bytes is not aligned") != std::string::npos);
}

TEST(an_exchange_of_a_part_of_a_warp_is_refused) {
  CHECK(error_of({.threads = {32}}, [] { __shfl_sync(0xffffu, 1, 0); }).find("part of a warp") != std::string::npos);
}

TEST(what_a_device_refuses_is_refused) {
  CHECK(error_of({.threads = {1025}}, [] {}).find("1025 threads") != std::string::npos);
  CHECK(error_of({.threads = {1}, .shared_bytes = 1 << 20}, [] {}) != "");
  CHECK(error_of({.blocks = {1, 65536}, .threads = {1}}, [] {}) != "");
}

TEST(every_thread_runs_once_with_its_own_indices) {
  std::vector<int> hits(2 * 3 * 2 * 4 * 2 * 2, 0);
  launch({.blocks = {2, 3, 2}, .threads = {4, 2, 2}, .seed = 5}, [&] {
    const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    ++hits[block * 16 + thread];
  });
  for (const int n : hits) CHECK_EQ(n, 1);
}

TEST(lanes_exchange_values) {
  int down[32], up[32], across[32], from[32], sum = 0;
  unsigned ballot[32];
  launch({.threads = {32}, .seed = 11}, [&] {
    const int lane = static_cast<int>(threadIdx.x);
    down[lane] = __shfl_down_sync(~0u, lane, 3);
    up[lane] = __shfl_up_sync(~0u, lane, 3);
    across[lane] = __shfl_xor_sync(~0u, lane, 5);
    from[lane] = __shfl_sync(~0u, 100 + lane, 9);
    ballot[lane] = __ballot_sync(~0u, lane % 2);
    atomicAdd(&sum, lane);
  });
  for (int i = 0; i < 32; ++i) {
    CHECK_EQ(down[i], i + 3 < 32 ? i + 3 : i);
    CHECK_EQ(up[i], i >= 3 ? i - 3 : i);
    CHECK_EQ(across[i], i ^ 5);
    CHECK_EQ(from[i], 109);
    CHECK_EQ(ballot[i], 0xaaaaaaaau);
  }
  CHECK_EQ(sum, 31 * 16);
}

// Elements are where the PTX manual says for mma.m16n8k16: each lane has elements i of A, B and C, two to a register.
TEST(a_warp_multiplies_fragments) {
  const auto a = [](int row, int k) { return static_cast<float>(row * 3 - k * 5 + 7); };
  const auto b = [](int k, int column) { return static_cast<float>(k * column - 9 + column); };
  const auto c = [](int row, int column) { return static_cast<float>(row - column); };
  float got[16][8];
  for (const uint64_t seed : {1, 2, 3}) {
    launch({.threads = {32}, .seed = seed}, [&] {
      const int lane = static_cast<int>(threadIdx.x), group = lane >> 2, within = lane % 4;
      const auto both = [](float low, float high) {
        return cuda_on_host::bf16_bits(low) | static_cast<uint32_t>(cuda_on_host::bf16_bits(high)) << 16;
      };
      cuda_on_host::Fragments mine{};
      for (int i = 0; i < 8; i += 2) {
        const int row = i < 2 || (4 <= i && i < 6) ? group : group + 8, k = within * 2 + (i >= 4 ? 8 : 0);
        mine.a[i / 2] = both(a(row, k), a(row, k + 1));
      }
      for (int i = 0; i < 4; i += 2) {
        const int k = within * 2 + (i >= 2 ? 8 : 0);
        mine.b[i / 2] = both(b(k, group), b(k + 1, group));
      }
      float sums[4];
      const auto row_of = [&](int i) { return i < 2 ? group : group + 8; };
      for (int i = 0; i < 4; ++i) sums[i] = c(row_of(i), within * 2 + i % 2);
      cuda_on_host::multiply_add(sums, mine, cuda_on_host::float_of_bf16);
      for (int i = 0; i < 4; ++i) got[row_of(i)][within * 2 + i % 2] = sums[i];
    });
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        float want = c(row, column);
        for (int k = 0; k < 16; ++k) want += a(row, k) * b(k, column);
        CHECK_EQ(got[row][column], want);
      }
    }
  }
}

TEST(fragments_take_a_whole_warp_that_does_nothing_else) {
  const auto multiply = [] {
    float sums[4] = {};
    cuda_on_host::multiply_add(sums, {}, cuda_on_host::float_of_bf16);
  };
  CHECK(error_of({.threads = {31}}, multiply).find("takes a whole warp") != std::string::npos);
  const std::string error = error_of({.threads = {32}}, [&] { threadIdx.x == 7 ? __syncwarp() : multiply(); });
  CHECK(error.find("exchange values and multiply fragments") != std::string::npos);
}

}  // namespace
