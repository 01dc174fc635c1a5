#include "memory/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

#include "base/counted.h"
#include "base/error.h"
#include "base/file_error.h"
#include "base/text.h"

namespace inferkit {
namespace {

struct stat stat_of(int fd, const std::string& path) {
  struct stat info;
  if (::fstat(fd, &info) != 0) throw FileError(errno, path);
  return info;
}

FileState state_of(const struct stat& info) {
  return {info.st_dev, info.st_ino, info.st_size, info.st_mtim, info.st_ctim};
}

bool earlier(const timespec& a, const timespec& b) {
  return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

/// The file's state, once any later change of it gets another time: the clock that stamps files moves in ticks of a few
/// milliseconds, and a file that was written in this one may still be written in it. A time that does not come (of
/// another machine's clock, or set by hand) is not waited for.
struct stat settled(int fd, const std::string& path) {
  constexpr timespec kWait{0, 1'000'000};
  constexpr int kTries = 20;
  struct stat info = stat_of(fd, path);
  for (int i = 0; i < kTries; ++i) {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (earlier(info.st_mtim, now) || info.st_mtim.tv_sec > now.tv_sec + 1) break;
    ::nanosleep(&kWait, nullptr);
    info = stat_of(fd, path);
  }
  return info;
}

/// Local file systems that stamp each change of a file with the time of this machine.
bool is_usual(int fd) {
  constexpr uint32_t kKinds[] = {0xef53,     /* ext2, 3 and 4 */ 0x58465342 /* XFS */, 0x9123683e /* Btrfs */,
                                 0x01021994, /* tmpfs */ 0x794c7630 /* overlayfs */,   0xf2f52010 /* F2FS */,
                                 0x2fc12fc1 /* ZFS */};
  struct statfs info;
  if (::fstatfs(fd, &info) != 0) return false;
  return std::ranges::find(kKinds, static_cast<uint32_t>(info.f_type)) != std::end(kKinds);
}

void require_regular(const struct stat& info, const std::string& what) {
  if (S_ISREG(info.st_mode)) return;
  const char* kind = S_ISDIR(info.st_mode)    ? "a directory"
                     : S_ISFIFO(info.st_mode) ? "a pipe"
                     : S_ISSOCK(info.st_mode) ? "a socket"
                                              : "a device";
  throw Error(ErrorCode::kModel, cat(what, " is ", kind, "; expected a regular file"));
}

/// `result` is what stat() or fstat() returned.
bool same_file(int result, const struct stat& info, const FileState& state) {
  return result == 0 && info.st_dev == state.device && info.st_ino == state.inode;
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::map(FileDescriptor fd, const std::string& path, const std::string& what) {
  require_regular(stat_of(fd.get(), path), what);
  const FileState state = state_of(settled(fd.get(), path));
  const int number = fd.get();
  const auto size = static_cast<size_t>(state.size);
  // The object first: when the mapping exists, its owner does too.
  auto file = std::make_shared<MappedFile>(Key{}, path, std::move(fd), state);
  if (size == 0) return file;
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, number, 0);
  if (data == MAP_FAILED) throw FileError(errno, path);
  file->bytes_ = {static_cast<const std::byte*>(data), size};
  file->region_.begin = file->bytes_.data();
  file->region_.bytes = size;
  return file;
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  if (path.find('\0') != std::string::npos) throw std::invalid_argument("a path may not hold a NUL character");
  FileDescriptor fd(::open(path.c_str(), kReadFlags));
  if (!fd) throw FileError(errno, path);
  return map(std::move(fd), path, path);
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  // A program that closed descriptors it had not opened, as daemons do, may have another file under the number by now.
  struct stat info;
  if (!same_file(::fstat(fd_.get(), &info), info, state_)) fd_.release();
}

void MappedFile::require_unchanged() const {
  const auto fail = [&](const std::string& what) {
    // For when it looks as before again. Relaxed: it stands for no other memory.
    changed_.store(true, std::memory_order_relaxed);
    return Error(ErrorCode::kModel, cat("the file ", quote(path_), " ", what,
                                        " since it was opened, and weights are read from it as they are used: load it "
                                        "again. Replace it by renaming a new file over the old one, or load the model "
                                        "with mmap=False"));
  };
  if (region_.lost.load(std::memory_order_relaxed)) throw fail("was cut short, or could not be read,");
  struct stat now;
  // Without its descriptor the file is known by its name, if it still has it.
  if (same_file(::fstat(fd_.get(), &now), now, state_) || same_file(::stat(path_.c_str(), &now), now, state_)) {
    if (now.st_size != state_.size) throw fail(cat("went from ", state_.size, " to ", counted(now.st_size, "byte")));
    const timespec& then = state_.modified;
    if (now.st_mtim.tv_sec != then.tv_sec || now.st_mtim.tv_nsec != then.tv_nsec) throw fail("was written to");
  }
  if (changed_.load(std::memory_order_relaxed)) throw fail("has changed");
}

std::optional<FileState> MappedFile::lasting_state() const {
  constexpr timespec kWait{0, 1'000'000};
  constexpr int kTries = 20;
  if (!is_usual(fd_.get())) return std::nullopt;
  for (int i = 0; i < kTries; ++i) {
    struct stat info;
    if (!same_file(::fstat(fd_.get(), &info), info, state_)) return std::nullopt;
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (earlier(info.st_ctim, now)) return state_of(info);
    ::nanosleep(&kWait, nullptr);
  }
  return std::nullopt;
}

void MappedFile::prefault(std::span<const std::byte> part) const noexcept {
  if (part.empty()) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(part.data()) & ~(page - 1);
  const size_t bytes = reinterpret_cast<uintptr_t>(part.data() + part.size()) - begin;
#ifdef MADV_POPULATE_READ
  ::madvise(reinterpret_cast<void*>(begin), bytes, MADV_POPULATE_READ);
#else
  ::madvise(reinterpret_cast<void*>(begin), bytes, MADV_WILLNEED);
#endif
}

void MappedFile::release_pages() const noexcept {
  if (!bytes_.empty()) ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
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

}  // namespace inferkit
