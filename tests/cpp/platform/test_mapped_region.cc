#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>

#include "platform/file_descriptor.h"
#include "platform/mapped_region.h"
#include "platform/thread_pool.h"
#include "test.h"

using namespace inferkit;

namespace {

const size_t kPage = static_cast<size_t>(::sysconf(_SC_PAGESIZE));

/// A mapped file without a name, every byte 7.
class Mapping {
 public:
  explicit Mapping(size_t pages) : fd_(make(pages)) {
    void* data = ::mmap(nullptr, pages * kPage, PROT_READ, MAP_SHARED, fd_.get(), 0);
    region.begin = static_cast<const std::byte*>(data);
    region.bytes = pages * kPage;
  }
  ~Mapping() { ::munmap(const_cast<std::byte*>(region.begin), region.bytes); }
  void cut(size_t pages) const { CHECK_EQ(::ftruncate(fd_.get(), static_cast<off_t>(pages * kPage)), 0); }
  int at(size_t page) const {
    return static_cast<int>(*static_cast<const volatile std::byte*>(region.begin + page * kPage));
  }

  MappedRegion region;

 private:
  static FileDescriptor make(size_t pages) {
    char name[] = "/tmp/inferkit_region_XXXXXX";
    FileDescriptor fd(::mkstemp(name));
    ::unlink(name);
    const std::string bytes(pages * kPage, 7);
    CHECK_EQ(::write(fd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    return fd;
  }
  FileDescriptor fd_;
};

/// The signal that ends a child which runs `body`; 0 where none does.
template <class Body>
int signal_that_ends(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/// Sanitizers report a bus error and exit; they do not let the signal end the process.
template <class Body>
bool dies(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    const int null = ::open("/dev/null", O_WRONLY);
    ::dup2(null, 2);
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

}  // namespace

TEST(region_missing_pages_read_as_zeros_and_are_marked) {
  const Mapping map(8);
  const MappedRegions regions{&map.region};
  const MappedReads reads(regions);
  CHECK_EQ(map.at(7), 7);
  map.cut(3);
  CHECK(!map.region.lost);
  CHECK_EQ(map.at(5), 0);
  CHECK(map.region.lost);
  CHECK_EQ(map.at(2), 7);  // what the file still has is as it was
  CHECK_EQ(map.at(3), 0);
  CHECK_EQ(map.at(7), 0);
}

TEST(region_others_are_not_touched) {
  const Mapping map(4), other(4);
  const MappedRegions regions{&map.region};
  map.cut(0);
  other.cut(0);
  // Outside of a scope, and inside of one for another file.
  CHECK(dies([&] { (void)map.at(1); }));
  CHECK(dies([&] {
    const MappedReads reads(regions);
    (void)map.at(1);
    (void)other.at(1);
  }));
  CHECK(dies([&] {
    {
      const MappedReads reads(regions);
    }
    (void)map.at(1);
  }));
  const MappedReads reads(regions);
  CHECK_EQ(map.at(1), 0);
  CHECK(!other.region.lost);
}

TEST(region_of_nested_scopes_the_outermost_counts) {
  const Mapping map(2), other(2);
  const MappedRegions both{&map.region, &other.region}, one{&map.region};
  other.cut(0);
  const MappedReads outer(both);
  {
    const MappedReads inner(one);
    CHECK_EQ(other.at(1), 0);
  }
  CHECK(MappedReads::current() == &both);
}

TEST(region_the_thread_pool_reads_for_its_caller) {
  ThreadPool pool(4);
  for (int round = 0; round < 20; ++round) {
    const Mapping map(64);
    const MappedRegions regions{&map.region};
    map.cut(0);
    {
      const MappedReads reads(regions);
      pool.parallel_for(64, 4, [&](int64_t page) { (void)map.at(static_cast<size_t>(page)); });
    }
    CHECK(map.region.lost);
    CHECK(MappedReads::current() == nullptr);
    pool.parallel_for(64, 4, [&](int64_t) { CHECK(MappedReads::current() == nullptr); });
  }
}

TEST(region_many_threads_at_once) {
  const Mapping map(64);
  const MappedRegions regions{&map.region};
  map.cut(1);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      const MappedReads reads(regions);
      int sum = 0;
      for (size_t page = 64; page-- > 1;) sum += map.at(page);
      CHECK_EQ(sum, 0);
      CHECK(map.region.lost);
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST(region_signals_that_are_sent_end_the_process) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return;  // the sanitizer's own handler stands behind ours
#endif
  const Mapping map(1);
  const MappedRegions regions{&map.region};
  CHECK_EQ(signal_that_ends([&] {
             const MappedReads reads(regions);
             ::kill(::getpid(), SIGBUS);
           }),
           SIGBUS);
}
