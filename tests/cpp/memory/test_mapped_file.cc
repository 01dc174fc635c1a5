#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
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

TEST(contained_opens_files_below_the_folder) {
  TempDir dir;
  fs::create_directories(dir / "sub/deep");
  dir.write("a.bin", "one");
  dir.write("sub/deep/b.bin", "two");
  CHECK_EQ(text_of(*open_contained(dir.path(), "a.bin")), "one");
  CHECK_EQ(text_of(*open_contained(dir.path(), "./a.bin")), "one");
  CHECK_EQ(text_of(*open_contained(dir.path(), "sub//deep/./b.bin")), "two");
  CHECK_EQ(text_of(*open_contained(dir.path() + "/", "sub/deep/b.bin")), "two");
}

TEST(contained_refuses_paths_that_lead_elsewhere) {
  TempDir dir;
  fs::create_directories(dir / "model/sub");
  dir.write("secret", "s");
  dir.write("model/a.bin", "a");
  const std::string folder = dir / "model";
  const auto open = [&](const std::string& relative) { return open_contained(folder, relative); };
  CHECK_MESSAGE(kModel, open("../secret"), "'..'");
  CHECK_MESSAGE(kModel, open("sub/../../secret"), "'..'");
  CHECK_MESSAGE(kModel, open("sub/../a.bin"), "'..'");
  CHECK_MESSAGE(kModel, open(".."), "'..'");
  CHECK_MESSAGE(kModel, open(dir / "secret"), "absolute");
  CHECK_MESSAGE(kModel, open(""), "empty");
  CHECK_MESSAGE(kModel, open("."), "directory");
  CHECK_MESSAGE(kModel, open("sub"), "directory");
  CHECK_MESSAGE(kModel, open("a.bin/"), folder);
  CHECK_MESSAGE(kModel, open("a.bin/x"), folder);
  CHECK_MESSAGE(kModel, open("none"), "No such file");
  CHECK_MESSAGE(kModel, open(std::string("a.bin\0/../secret", 16)), "NUL");
  CHECK_MESSAGE(kModel, open(std::string(100000, 'x')), "too long");
  CHECK_MESSAGE(kModel, open(std::string(300, 'x')), "too long");
  CHECK_MESSAGE(kModel, open_contained(dir / "nowhere", "a.bin"), "No such file");
}

TEST(contained_refuses_links) {
  TempDir dir;
  fs::create_directories(dir / "model/real");
  dir.write("secret", "s");
  dir.write("model/a.bin", "a");
  dir.write("model/real/b.bin", "b");
  const std::string folder = dir / "model";
  fs::create_symlink("../secret", dir / "model/out");
  fs::create_symlink("a.bin", dir / "model/in");
  fs::create_symlink("real", dir / "model/alias");
  fs::create_symlink("..", dir / "model/up");
  fs::create_hard_link(dir / "secret", dir / "model/hard");
  for (const char* name : {"out", "in", "alias/b.bin", "up/secret"}) {
    CHECK_MESSAGE(kModel, open_contained(folder, name), "symbolic link");
  }
  CHECK_MESSAGE(kModel, open_contained(folder, "hard"), "2 hard links");
  // The folder itself is the caller's word, link or not.
  fs::create_symlink("model", dir / "alias");
  CHECK_EQ(text_of(*open_contained(dir / "alias", "a.bin")), "a");
}

TEST(contained_refuses_what_is_no_regular_file) {
  TempDir dir;
  CHECK_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  CHECK_MESSAGE(kModel, open_contained(dir.path(), "fifo"), "a pipe");
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (dir / "socket").c_str(), sizeof address.sun_path - 1);
  CHECK_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::close(fd);
  CHECK_MESSAGE(kModel, open_contained(dir.path(), "socket"), "cannot be opened");
}
