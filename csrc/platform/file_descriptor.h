// An open file that closes itself.
#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <utility>

namespace inferkit {

/// Opens a regular file to be read. O_NONBLOCK so that a FIFO in its place is refused instead of waited for; regular
/// files ignore it.
constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;

class FileDescriptor {
 public:
  /// Takes what open() returned, -1 included.
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
  /// Forgets the file without closing it.
  void release() { fd_ = -1; }

 private:
  int fd_;
};

}  // namespace inferkit
