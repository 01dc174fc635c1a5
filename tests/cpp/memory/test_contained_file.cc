#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "check_error.h"
#include "memory/contained_file.h"
#include "temp_dir.h"

using namespace inferkit;
using inferkit::testing::TempDir;
namespace fs = std::filesystem;

namespace {
std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}
std::shared_ptr<const MappedFile> open_in(const std::string& folder, const std::string& relative) {
  return open_contained({&folder, 1}, relative);
}
constexpr auto kModel = ErrorCode::kModel;
}  // namespace

TEST(contained_opens_files_below_the_folder) {
  TempDir dir;
  fs::create_directories(dir / "sub/deep");
  dir.write("a.bin", "one");
  dir.write("sub/deep/b.bin", "two");
  CHECK_EQ(text_of(*open_in(dir.path(), "a.bin")), "one");
  CHECK_EQ(text_of(*open_in(dir.path(), "./a.bin")), "one");
  CHECK_EQ(text_of(*open_in(dir.path(), "sub//deep/./b.bin")), "two");
  CHECK_EQ(text_of(*open_in(dir.path() + "/", "sub/deep/b.bin")), "two");
}

TEST(contained_refuses_paths_that_lead_elsewhere) {
  TempDir dir;
  fs::create_directories(dir / "model/sub");
  dir.write("secret", "s");
  dir.write("model/a.bin", "a");
  const std::string folder = dir / "model";
  const auto open = [&](const std::string& relative) { return open_in(folder, relative); };
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
  CHECK_MESSAGE(kModel, open_in(dir / "nowhere", "a.bin"), "No such file");
}

TEST(contained_follows_links_inside_the_folders) {
  TempDir dir;
  fs::create_directories(dir / "model/real");
  fs::create_directories(dir / "models");  // begins as "model" does
  dir.write("secret", "s");
  dir.write("models/secret", "s");
  dir.write("model/a.bin", "a");
  dir.write("model/real/b.bin", "b");
  fs::create_symlink("a.bin", dir / "model/in");
  fs::create_symlink("in", dir / "model/twice");
  fs::create_symlink("real", dir / "model/alias");
  fs::create_symlink(dir / "model", dir / "model/round");
  fs::create_symlink("../secret", dir / "model/out");
  fs::create_symlink("..", dir / "model/up");
  fs::create_symlink("../models/secret", dir / "model/near");
  fs::create_symlink("nowhere", dir / "model/dangling");
  fs::create_symlink("self", dir / "model/self");
  fs::create_symlink("/dev/null", dir / "model/null");
  fs::create_hard_link(dir / "secret", dir / "model/hard");
  const auto open = [&](const std::string& relative) { return open_in(dir / "model", relative); };
  CHECK_EQ(text_of(*open("in")), "a");
  CHECK_EQ(text_of(*open("twice")), "a");
  CHECK_EQ(text_of(*open("alias/b.bin")), "b");
  CHECK_EQ(text_of(*open("round/round/alias/b.bin")), "b");
  // Package managers install by hard links; who can make one can read the file.
  CHECK_EQ(text_of(*open("hard")), "s");
  for (const char* name : {"out", "up/secret", "near", "null"}) CHECK_MESSAGE(kModel, open(name), "symbolic link");
  CHECK_MESSAGE(kModel, open("alias"), "a directory");
  CHECK_MESSAGE(kModel, open("dangling"), "No such file");
  CHECK_MESSAGE(kModel, open("self"), "Too many levels");
  // The folder itself is the caller's word, link or not.
  fs::create_symlink("model", dir / "alias");
  CHECK_EQ(text_of(*open_in(dir / "alias", "a.bin")), "a");
  CHECK_EQ(text_of(*open_in(dir / "alias", "twice")), "a");
}

TEST(contained_looks_beside_the_path_and_beside_the_file) {
  TempDir dir;
  fs::create_directories(dir / "blobs");
  fs::create_directories(dir / "snapshot/onnx");
  fs::create_directories(dir / "plain");
  dir.write("secret", "s");
  dir.write("blobs/c6", "model");
  dir.write("blobs/b8", "data");
  dir.write("blobs/beside", "beside");
  dir.write("plain/model", "model");
  fs::create_symlink("../../blobs/c6", dir / "snapshot/onnx/model");
  fs::create_symlink("../../blobs/b8", dir / "snapshot/onnx/data");
  fs::create_symlink("../../secret", dir / "snapshot/onnx/out");
  fs::create_symlink("../secret", dir / "blobs/out");
  fs::create_symlink("plain", dir / "current");
  const std::vector<std::string> folders = folders_of(dir / "snapshot/onnx/model");
  CHECK_EQ(folders.size(), 2u);
  CHECK_EQ(text_of(*open_contained(folders, "data")), "data");
  CHECK_EQ(text_of(*open_contained(folders, "beside")), "beside");
  CHECK_MESSAGE(kModel, open_contained(folders, "out"), "symbolic link");
  CHECK_MESSAGE(kModel, open_contained(folders, "../b8"), "'..'");
  CHECK_MESSAGE(kModel, open_contained(folders, "nowhere"), "snapshot/onnx");
  // One folder where the path is plain, or goes through a linked folder.
  CHECK_EQ(folders_of(dir / "plain/model").size(), 1u);
  CHECK_EQ(folders_of(dir / "current/model").size(), 1u);
  CHECK_EQ(folders_of("model").front(), ".");
  CHECK_EQ(folders_of("/model").front(), "/");
}

TEST(contained_refuses_what_is_no_regular_file) {
  TempDir dir;
  CHECK_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  CHECK_MESSAGE(kModel, open_in(dir.path(), "fifo"), "a pipe");
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, (dir / "socket").c_str(), sizeof address.sun_path - 1);
  CHECK_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ::close(fd);
  CHECK_MESSAGE(kModel, open_in(dir.path(), "socket"), "cannot be opened");
}
