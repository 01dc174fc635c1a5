// A file as read-only memory, shared with every thread and process that maps the same file.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace inferkit {

/// Maps a regular file MAP_SHARED and PROT_READ. Immutable, so safe to use from many threads; unmapped with its last
/// owner. The file must not be truncated while it is mapped (the kernel answers that with SIGBUS): to replace a
/// file, write a new one beside it and rename.
class MappedFile {
 public:
  /// Throws std::system_error, with errno and the path, where the file cannot be opened or mapped, and Error(kModel)
  /// where it is not a regular file. Symbolic links are followed: the caller chose the path. An empty file maps to no
  /// bytes.
  static std::shared_ptr<const MappedFile> open(const std::string& path);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  /// The whole file; page-aligned, valid while this object lives.
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

  /// Reads the file into memory and fills this process's page tables, so that no later read waits for the disk. A
  /// hint: it never fails. A file larger than half of the machine's memory is only announced to the kernel.
  void prefault() const noexcept;

 private:
  friend std::shared_ptr<const MappedFile> open_contained(const std::string&, const std::string&);
  struct Key {};

 public:
  /// For make_shared; `bytes` becomes this object's to unmap.
  MappedFile(Key, std::string path, std::span<const std::byte> bytes) : path_(std::move(path)), bytes_(bytes) {}

 private:
  static std::shared_ptr<const MappedFile> map(int fd, const std::string& path, size_t size);

  std::string path_;
  std::span<const std::byte> bytes_;
};

/// Opens `relative`, a path that an untrusted file (an ONNX model with external data) gives, inside `folder`. Refuses,
/// with Error(kModel), whatever could lead elsewhere: an absolute path, "..", a symbolic link in any component below
/// the folder, a file with more than one hard link, anything but a regular file, an empty path, a NUL; and a file that
/// is missing or cannot be read. `folder` itself is trusted.
std::shared_ptr<const MappedFile> open_contained(const std::string& folder, const std::string& relative);

}  // namespace inferkit
