// Bytes at odd addresses of a file: copied once, by whoever reads them first, and not before.
#include <cstring>
#include <thread>

#include "memory/odd_bytes.h"
#include "platform/run_control.h"
#include "temp_dir.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

std::string pattern(size_t bytes) {
  std::string out(bytes, '?');
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<char>(i * 7 + i / 256);
  return out;
}

class StopAtOnce final : public RunControl {
 protected:
  bool look(Nanos) override { return true; }
};

}  // namespace

TEST(odd_bytes_are_copied_once_and_aligned) {
  const TempDir dir;
  constexpr size_t kSizes[] = {1, 63, 16 << 10, (256 << 10) - 1, 256 << 10, (3 << 20) + 5};
  for (const size_t bytes : kSizes) {
    const std::string content = pattern(bytes + 9);
    const auto file = MappedFile::open(dir.write("file", content));
    const OddBytes odd(file, file->bytes().subspan(3, bytes));
    CHECK(!odd.copied());
    CHECK_EQ(odd.place().data(), file->bytes().data() + 3);
    const std::byte* copy = odd.aligned();
    CHECK(odd.copied());
    CHECK_EQ(reinterpret_cast<uintptr_t>(copy) % 64, uintptr_t{0});
    CHECK_EQ(std::memcmp(copy, content.data() + 3, bytes), 0);
    CHECK_EQ(odd.aligned(), copy);
  }
}

TEST(odd_bytes_keep_their_file) {
  const TempDir dir;
  const std::string content = pattern(5000);
  auto file = MappedFile::open(dir.write("file", content));
  const OddBytes odd(file, file->bytes().subspan(1, 4000));
  const std::weak_ptr<const MappedFile> seen = file;
  file.reset();
  CHECK(!seen.expired());
  CHECK_EQ(std::memcmp(odd.aligned(), content.data() + 1, 4000), 0);
}

TEST(threads_that_read_odd_bytes_at_once_read_one_copy) {
  const TempDir dir;
  const std::string content = pattern(200'001);
  const auto file = MappedFile::open(dir.write("file", content));
  for (int round = 0; round < 50; ++round) {
    const OddBytes odd(file, file->bytes().subspan(1, 200'000));
    std::vector<const std::byte*> seen(4);
    std::vector<int> differs(4, -1);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < seen.size(); ++t) {
      threads.emplace_back([&, t] {
        seen[t] = odd.aligned();
        differs[t] = std::memcmp(seen[t], content.data() + 1, 200'000);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t t = 0; t < seen.size(); ++t) {
      CHECK_EQ(seen[t], seen[0]);
      CHECK_EQ(differs[t], 0);
    }
  }
}

TEST(a_copy_of_odd_bytes_that_is_stopped_is_none) {
  const TempDir dir;
  const std::string content = pattern(8 << 20);
  const auto file = MappedFile::open(dir.write("file", content));
  const OddBytes odd(file, file->bytes().subspan(1));
  {
    StopAtOnce stop;
    const RunControl::Scope scope(&stop);
    CHECK_THROWS(odd.aligned(), Stopped);
  }
  CHECK(!odd.copied());
  CHECK_EQ(std::memcmp(odd.aligned(), content.data() + 1, content.size() - 1), 0);
}
