#include "memory/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace inferkit {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  explicit operator bool() const { return fd_ >= 0; }
  int get() const { return fd_; }

 private:
  int fd_;
};

// O_NONBLOCK so that a FIFO in the file's place is refused instead of waited for; regular files ignore it.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

struct stat stat_of(int fd, const std::string& path) {
  struct stat info;
  if (::fstat(fd, &info) != 0) throw std::system_error(errno, std::generic_category(), path);
  return info;
}

void require_regular(const struct stat& info, const std::string& what) {
  if (S_ISREG(info.st_mode)) return;
  const char* kind = S_ISDIR(info.st_mode)    ? "a directory"
                     : S_ISFIFO(info.st_mode) ? "a pipe"
                     : S_ISSOCK(info.st_mode) ? "a socket"
                                              : "a device";
  throw Error(ErrorCode::kModel, cat(what, " is ", kind, "; expected a regular file"));
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::map(int fd, const std::string& path, size_t size) {
  if (size == 0) return std::make_shared<const MappedFile>(Key{}, path, std::span<const std::byte>{});
  // The object first: when the mapping exists, its owner does too.
  auto file = std::make_shared<MappedFile>(Key{}, path, std::span<const std::byte>{});
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) throw std::system_error(errno, std::generic_category(), path);
  file->bytes_ = {static_cast<const std::byte*>(data), size};
  return file;
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  if (path.find('\0') != std::string::npos) throw std::invalid_argument("a path may not hold a NUL character");
  const FileDescriptor fd(::open(path.c_str(), kReadFlags));
  if (!fd) throw std::system_error(errno, std::generic_category(), path);
  const struct stat info = stat_of(fd.get(), path);
  require_regular(info, path);
  return map(fd.get(), path, static_cast<size_t>(info.st_size));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::prefault() const noexcept {
  if (bytes_.empty()) return;
  void* data = const_cast<std::byte*>(bytes_.data());
#ifdef MADV_POPULATE_READ
  const auto memory = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  if (bytes_.size() <= memory / 2 && ::madvise(data, bytes_.size(), MADV_POPULATE_READ) == 0) return;
#endif
  ::madvise(data, bytes_.size(), MADV_WILLNEED);
}

std::shared_ptr<const MappedFile> open_contained(const std::string& folder, const std::string& relative) {
  const std::string what = cat("external data ", quote(relative));
  const auto refuse = [&](const std::string& why) -> Error {
    return Error(ErrorCode::kModel,
                 cat(what, " ", why, "; it must be a plain file inside the model's folder ", folder));
  };
  const auto failed = [&](int error) -> Error {
    return Error(ErrorCode::kModel, cat(what, " in ", folder, " cannot be opened: ", std::strerror(error)));
  };
  if (relative.empty()) throw refuse("has an empty path");
  if (relative.find('\0') != std::string::npos) throw refuse("holds a NUL character");
  if (relative.front() == '/') throw refuse("is an absolute path");
  if (relative.size() >= PATH_MAX) throw refuse("has a path that is too long");

  // One component at a time from an open folder, never through a link and never upwards: whatever others rename
  // meanwhile, the walk stays below the folder. Does what openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS) does, on any
  // kernel and under any seccomp filter.
  FileDescriptor at(::open(folder.empty() ? "." : folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at) throw failed(errno);
  for (size_t begin = 0; begin <= relative.size();) {
    const size_t end = std::min(relative.find('/', begin), relative.size());
    const bool last = end == relative.size();
    const std::string component = relative.substr(begin, end - begin);
    begin = end + 1;
    if (component == "..") throw refuse("leads out of the folder with '..'");
    if (component.empty() || component == ".") {
      if (last) throw refuse("names a directory");
      continue;
    }
    FileDescriptor next(
        ::openat(at.get(), component.c_str(),
                 O_NOFOLLOW | (last ? kReadFlags : static_cast<int>(O_PATH | O_DIRECTORY | O_CLOEXEC))));
    if (!next) {
      const int error = errno;
      struct stat link;
      if (::fstatat(at.get(), component.c_str(), &link, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(link.st_mode)) {
        throw refuse(cat("goes through the symbolic link ", quote(component)));
      }
      throw failed(error);
    }
    at = std::move(next);
  }
  const std::string path = folder.empty() ? relative : cat(folder, "/", relative);
  const struct stat info = stat_of(at.get(), path);
  require_regular(info, what);
  if (info.st_nlink != 1) throw refuse(cat("has ", info.st_nlink, " hard links, expected one"));
  return MappedFile::map(at.get(), path, static_cast<size_t>(info.st_size));
}

}  // namespace inferkit
