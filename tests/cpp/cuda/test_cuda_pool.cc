// The pools of a device's memory and of pinned memory, and the constants that lie there.
#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>

#include "backend_on_host.h"
#include "device/cuda/cuda_pool.h"
#include "device/cuda/uploads.h"
#include "models.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

/// Addresses of no memory, but for what is uploaded: a pool never looks at what it holds.
class CountingBackend final : public CudaBackend {
 public:
  void* allocate(size_t bytes) override { return give(bytes, room); }
  void release(void* memory) noexcept override { room += take(memory); }
  void* allocate_pinned(size_t bytes) override { return give(bytes, pinned_room); }
  void release_pinned(void* memory) noexcept override { pinned_room += take(memory); }
  void forget(void*, size_t) noexcept override { ++forgotten; }
  void upload(void*, const void*, size_t) override { ++uploads; }
  std::unique_ptr<CudaGraph> capture(const FunctionRef<void(LaunchQueue&)>&, size_t) override { return nullptr; }
  std::unique_ptr<CudaLane> lane() override { return nullptr; }
  std::unique_ptr<CudaMark> mark(uintptr_t) noexcept override { return nullptr; }
  int device_of(const void*) noexcept override { return kNobody; }

  size_t held() const {
    const std::scoped_lock lock(mutex_);
    size_t sum = 0;
    for (const auto& [at, bytes] : blocks_) sum += bytes;
    return sum;
  }

  std::atomic<size_t> room{size_t{1} << 40}, pinned_room{size_t{1} << 40};
  std::atomic<int> uploads{0}, forgotten{0};
  bool fails = false;

 private:
  void* give(size_t bytes, std::atomic<size_t>& from) {
    if (fails) throw Error(ErrorCode::kDevice, "the device has fallen off");
    const std::scoped_lock lock(mutex_);
    if (from < bytes) throw Error(ErrorCode::kPoolExhausted, cat("no ", bytes, " bytes are left"));
    from -= bytes;
    next_ += 256;
    blocks_[next_] = bytes;
    return reinterpret_cast<void*>(next_);
  }
  size_t take(void* memory) noexcept {
    const std::scoped_lock lock(mutex_);
    return blocks_.extract(reinterpret_cast<uintptr_t>(memory)).mapped();
  }
  mutable std::mutex mutex_;  // for what follows
  uintptr_t next_ = 0;
  std::map<uintptr_t, size_t> blocks_;
};

template <class F>
Error error_of(F&& run) {
  try {
    run();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorCode::kClosed, "no error");
}
bool says(const Error& error, std::string_view piece) {
  return std::string_view(error.what()).find(piece) != std::string_view::npos;
}

TEST(a_block_serves_again_and_all_of_it_is_counted) {
  CountingBackend backend;
  {
    CudaPool pool(backend, CudaPool::Kind::kDevice);
    std::byte* first = nullptr;
    {
      const CudaBlock a = pool.acquire(1000, "run"), b = pool.acquire(70'000, "weights");
      first = a.data();
      CHECK_EQ(pool.stats().in_use_bytes, size_t{1024 + 81'920});
      CHECK_EQ(pool.stats().outstanding, size_t{2});
      CHECK_EQ(pool.stats().misses, uint64_t{2});
      const auto rows = pool.leaks();
      CHECK_EQ(rows.size(), size_t{2});
      CHECK_EQ(rows[0].tag, "weights");
      CHECK_EQ(rows[0].bytes, size_t{70'000});
      CHECK_EQ(rows[1].tag, "run");
      CHECK_EQ(rows[1].capacity, size_t{1024});
    }
    CHECK_EQ(backend.forgotten, 2);
    CHECK_EQ(pool.stats().in_use_bytes, size_t{0});
    CHECK_EQ(pool.stats().cached_bytes, size_t{1024 + 81'920});
    CHECK(pool.leaks().empty());
    const CudaBlock again = pool.acquire(900, "run");  // of the same class
    CHECK(again.data() == first);
    CHECK_EQ(pool.stats().hits, uint64_t{1});
    CHECK_EQ(pool.stats().peak_bytes, size_t{1024 + 81'920});
    CHECK_EQ(pool.trim(), size_t{81'920});
    CHECK_EQ(backend.held(), size_t{1024});
  }
  CHECK_EQ(backend.held(), size_t{0});
}

TEST(what_is_for_long_has_its_own_size_and_goes_back_at_once) {
  CountingBackend backend;
  CudaPool pool(backend, CudaPool::Kind::kDevice);
  {
    const CudaBlock weights = pool.acquire_once(70'000, "weights");
    CHECK_EQ(pool.stats().in_use_bytes, size_t{70'144});  // in steps of 256
  }
  CHECK_EQ(pool.stats().cached_bytes, size_t{0});
  CHECK_EQ(backend.held(), size_t{0});
}

TEST(a_cap_is_kept_and_what_is_free_makes_room) {
  CountingBackend backend;
  CudaPool pool(backend, CudaPool::Kind::kDevice);
  pool.limit(4096);
  {
    const CudaBlock used = pool.acquire(2048, "run");
    {
      const CudaBlock free = pool.acquire(1024, "run");
    }
    CHECK_EQ(pool.stats().cached_bytes, size_t{1024});
    const Error error = error_of([&] { pool.acquire(2500, "run"); });
    CHECK(error.code() == ErrorCode::kPoolExhausted);
    CHECK(says(error, "of the cap of 4096 bytes, 2048 bytes are in use by inferkit and 1024 free"));
    const CudaBlock fits = pool.acquire(2048, "run");  // the free one goes back for it
    CHECK_EQ(backend.held(), size_t{4096});
  }
  CHECK_EQ(backend.held(), size_t{4096});
  pool.limit(2048);  // what is free beyond it goes back
  CHECK_EQ(backend.held(), size_t{2048});
  pool.limit(0);
  CHECK_EQ(pool.acquire(1 << 20, "run").data() != nullptr, true);
}

TEST(a_cap_below_what_is_in_use_gives_nothing_more_and_keeps_nothing) {
  CountingBackend backend;
  CudaPool pool(backend, CudaPool::Kind::kDevice);
  {
    const CudaBlock used = pool.acquire(4096, "run");
    pool.limit(1024);
    CHECK(error_of([&] { pool.acquire(256, "run"); }).code() == ErrorCode::kPoolExhausted);
  }
  CHECK_EQ(backend.held(), size_t{0});
  CHECK(pool.acquire(256, "run").data() != nullptr);
}

TEST(a_device_without_memory_gets_back_what_is_free_and_then_it_is_an_error_with_figures) {
  CountingBackend backend;
  CudaPool pool(backend, CudaPool::Kind::kDevice);
  backend.room = 8192;
  {
    const CudaBlock large = pool.acquire(6000, "run");
  }
  CHECK_EQ(pool.stats().cached_bytes, size_t{6144});
  const CudaBlock other = pool.acquire(4096, "run");  // another class: there is room once the free one went back
  CHECK_EQ(pool.stats().cached_bytes, size_t{0});
  const Error error = error_of([&] { pool.acquire(5000, "run"); });
  CHECK(error.code() == ErrorCode::kPoolExhausted);
  CHECK(says(error, "no 5120 bytes are left; 4096 bytes are in use by inferkit and 0 free in its pool"));
  CHECK_EQ(pool.stats().in_use_bytes, size_t{4096});
  CHECK_EQ(pool.stats().outstanding, size_t{1});
}

TEST(a_device_that_fails_is_no_lack_of_memory) {
  CountingBackend backend;
  CudaPool pool(backend, CudaPool::Kind::kDevice);
  backend.fails = true;
  CHECK(error_of([&] { pool.acquire(1, "run"); }).code() == ErrorCode::kDevice);
  CHECK_EQ(pool.stats().in_use_bytes, size_t{0});
  backend.fails = false;
  CHECK(pool.acquire(1, "run").data() != nullptr);
}

TEST(no_more_is_kept_than_a_bound) {
  CountingBackend backend;
  CudaPool pool(backend, CudaPool::Kind::kPinned);
  {
    std::vector<CudaBlock> all;
    for (int i = 0; i < 5; ++i) all.push_back(pool.acquire(CudaPool::kMostCached / 4, "run"));
  }
  CHECK_EQ(pool.stats().cached_bytes, CudaPool::kMostCached);
  CHECK_EQ(backend.held(), CudaPool::kMostCached);
  CHECK_EQ(backend.forgotten, 0);  // of the host's memory nothing needs to be forgotten
}

TEST(threads_share_a_pool) {
  CountingBackend backend;
  CudaPool pool(backend, CudaPool::Kind::kDevice);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 draw(t);
      std::vector<CudaBlock> mine(8);
      for (int i = 0; i < 2000; ++i) {
        mine[draw() % mine.size()] =
            draw() % 8 == 0 ? pool.acquire_once(draw() % 9000, "weights") : pool.acquire(draw() % 9000, "run");
        if (draw() % 64 == 0) pool.trim();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  const PoolStats stats = pool.stats();
  CHECK_EQ(stats.outstanding, size_t{0});
  CHECK_EQ(stats.in_use_bytes, size_t{0});
  CHECK_EQ(stats.cached_bytes, backend.held());
  CHECK_EQ(stats.hits + stats.misses, uint64_t{8000});
}

TEST(equal_bytes_at_two_places_are_uploaded_once_and_other_bytes_at_a_place_again) {
  CountingBackend backend;
  CudaPool pool(backend, CudaPool::Kind::kDevice);
  Uploads uploads(backend, pool);
  std::vector<std::byte> here(1000, std::byte{1}), there = here;
  auto one = uploads.get(here.data(), here.size());
  const auto two = uploads.get(there.data(), there.size());
  CHECK(one->data() == two->data());
  CHECK_EQ(backend.uploads, 1);
  CHECK_EQ(uploads.bytes(), size_t{1000});
  CHECK(uploads.get(here.data(), 500)->data() != one->data());  // a part of it is something else
  CHECK_EQ(backend.uploads, 2);
  // The bytes live on with who has them elsewhere; at the first place there may be others now.
  one.reset();
  here.assign(1000, std::byte{2});
  const auto other = uploads.get(here.data(), here.size());
  CHECK(other->data() != two->data());
  CHECK_EQ(backend.uploads, 3);
  CHECK_EQ(uploads.bytes(), size_t{2000});
  CHECK(uploads.get(nullptr, 0)->data() != nullptr);  // of no bytes: there is a place, and nothing is read
  CHECK_EQ(backend.uploads, 3);
}

TEST(two_models_of_one_file_have_their_weights_on_the_device_once) {
  cuda_on_host::Figures figures;
  const auto device = cuda_on_host::make_device(figures);
  const std::vector<Input> rows{floats({2, 4}, 1)};
  const auto one = Model::load(data("graph/mlp.onnx"), on(*device));
  const auto want = answers(*one, rows);
  const int64_t uploads = figures.uploads;
  const size_t bytes = device->memory().weight_bytes;
  CHECK(uploads > 0);
  CHECK(bytes > 0);
  {
    const auto two = Model::load(data("graph/mlp.onnx"), on(*device));
    CHECK(answers(*two, rows) == want);
    CHECK_EQ(figures.uploads, uploads);
    CHECK_EQ(device->memory().weight_bytes, bytes);
  }
  CHECK(answers(*one, rows) == want);
}

}  // namespace
