#include <sys/stat.h>

#include <filesystem>
#include <system_error>

#include "check_error.h"
#include "memory/mapped_file.h"
#include "temp_dir.h"

using namespace inferkit;
using inferkit::testing::TempDir;
namespace fs = std::filesystem;

namespace {
std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}
constexpr auto kModel = ErrorCode::kModel;
}  // namespace

TEST(map_reads_the_file) {
  TempDir dir;
  const std::string path = dir.write("a.bin", "hello");
  const auto file = MappedFile::open(path);
  file->prefault();
  CHECK_EQ(text_of(*file), "hello");
  CHECK_EQ(file->path(), path);
  // What another process writes into the file is seen: the pages are shared, not copied.
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary) << "J";
  CHECK_EQ(text_of(*file), "Jello");
}

TEST(map_outlives_the_name) {
  TempDir dir;
  const auto file = MappedFile::open(dir.write("a.bin", "hello"));
  fs::remove(dir / "a.bin");
  CHECK_EQ(text_of(*file), "hello");
}

TEST(map_empty_file) {
  TempDir dir;
  const auto file = MappedFile::open(dir.write("a.bin", ""));
  file->prefault();
  CHECK_EQ(file->bytes().size(), 0u);
}

TEST(map_missing_file_keeps_errno_and_path) {
  TempDir dir;
  try {
    MappedFile::open(dir / "none");
    CHECK(false);
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::errc::no_such_file_or_directory);
    CHECK(std::string(error.what()).find(dir / "none") != std::string::npos);
  }
}

TEST(map_follows_links_that_the_caller_names) {
  TempDir dir;
  dir.write("a.bin", "hello");
  fs::create_symlink("a.bin", dir / "link");
  CHECK_EQ(text_of(*MappedFile::open(dir / "link")), "hello");
}

TEST(map_refuses_what_is_no_regular_file) {
  TempDir dir;
  CHECK_MESSAGE(kModel, MappedFile::open(dir.path()), "a directory");
  CHECK_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  CHECK_MESSAGE(kModel, MappedFile::open(dir / "fifo"), "a pipe");
  CHECK_MESSAGE(kModel, MappedFile::open("/dev/null"), "a device");
  CHECK_THROWS(MappedFile::open(std::string("a\0b", 3)), std::invalid_argument);
}
