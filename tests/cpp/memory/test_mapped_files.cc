#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check_error.h"
#include "memory/mapped_files.h"
#include "temp_dir.h"

using namespace inferkit;
using inferkit::testing::TempDir;
namespace fs = std::filesystem;

namespace {
constexpr auto kModel = ErrorCode::kModel;

MappedFiles files_of(const std::string& path) {
  MappedFiles files;
  files.add(MappedFile::open(path));
  return files;
}
void write_over(const std::string& path, const std::string& text) {
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary) << text;
}
}  // namespace

TEST(files_are_a_set) {
  const TempDir dir;
  const auto a = MappedFile::open(dir.write("a", "aaa")), b = MappedFile::open(dir.write("b", "bbb"));
  MappedFiles files;
  CHECK(files.empty());
  files.add(a);
  files.add(b);
  files.add(a);
  CHECK_EQ(files.size(), 2u);
  CHECK(*files.find(b->bytes().data() + 2) == b);
  CHECK(files.find(b->bytes().data() + 3) == nullptr);
  files.remove(*b);
  CHECK(files.find(b->bytes().data()) == nullptr);
  CHECK_EQ(files.size(), 1u);
}

TEST(files_that_stay_are_unchanged) {
  const TempDir dir;
  const std::string path = dir.write("a", "hello");
  const auto files = files_of(path);
  files.require_unchanged();
  CHECK_EQ(files.guarded([] { return 3; }), 3);
  // A new file under the name, a new name, none, other permissions: the bytes are what they were.
  dir.write("b", "other");
  fs::rename(dir / "b", path);
  files.require_unchanged();
  fs::remove(path);
  files.require_unchanged();
}

TEST(files_that_are_written_to_are_noticed) {
  const TempDir dir;
  const std::string path = dir.write("a", "hello");
  const auto same_size = files_of(path);
  const auto written = fs::last_write_time(path);
  write_over(path, "J");  // at once: also in the tick of the clock in which the file was made
  CHECK_MESSAGE(kModel, same_size.require_unchanged(), "was written to");
  CHECK_MESSAGE(kModel, same_size.require_unchanged(), "was written to");
  fs::last_write_time(path, written);
  CHECK_MESSAGE(kModel, same_size.require_unchanged(), "has changed");  // once noticed, for ever
  const auto grown = files_of(path);
  std::ofstream(path, std::ios::app) << "x";
  CHECK_MESSAGE(kModel, grown.require_unchanged(), "from 5 to 6 bytes");
  const auto cut = files_of(path);
  fs::resize_file(path, 2);
  CHECK_MESSAGE(kModel, cut.require_unchanged(), path);
  CHECK_MESSAGE(kModel, cut.guarded([] { return 1; }), path);
  CHECK_MESSAGE(kModel, cut.guarded([]() -> int { throw Error(ErrorCode::kInference, "of what was read"); }), path);
}

TEST(files_written_to_under_another_name_are_noticed) {
  const TempDir dir;
  const std::string path = dir.write("a", "hello");
  const auto files = files_of(path);
  fs::rename(path, dir / "b");
  write_over(dir / "b", "J");
  CHECK_MESSAGE(kModel, files.require_unchanged(), "was written to");
}

TEST(files_that_lose_pages_fail_the_reader) {
  const TempDir dir;
  const std::string path = dir.write("a", std::string(1 << 16, 'x'));
  const auto files = files_of(path);
  const auto file = MappedFile::open(path);
  MappedFiles set;
  set.add(file);
  const auto last = [&] { return static_cast<int>(*static_cast<const volatile std::byte*>(&file->bytes().back())); };
  CHECK_EQ(set.guarded(last), static_cast<int>('x'));
  fs::resize_file(path, 0);
  CHECK_MESSAGE(kModel, set.guarded(last), "cut short");
  CHECK_MESSAGE(kModel, set.require_unchanged(), "cut short");
}

// Daemons close what they inherit: then the number of our descriptor may be another file's.
TEST(files_whose_descriptor_was_taken_are_known_by_name) {
  const TempDir dir;
  const std::string path = dir.write("a", "hello");
  dir.write("other", "other");
  int taken = -1;
  {
    const int next = ::dup(0);
    ::close(next);  // the number that the file will get
    auto files = files_of(path);
    ::close(next);
    files.require_unchanged();
    taken = ::open((dir / "other").c_str(), O_RDONLY | O_CLOEXEC);
    CHECK_EQ(taken, next);
    files.require_unchanged();
    write_over(path, "J");
    CHECK_MESSAGE(kModel, files.require_unchanged(), "was written to");
  }
  struct stat info;
  CHECK_EQ(::fstat(taken, &info), 0);  // not ours to close
  ::close(taken);
}
