// A file as read-only memory, shared with every thread and process that maps the same file.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "platform/file_descriptor.h"
#include "platform/mapped_region.h"

namespace inferkit {

/// What tells two states of a file apart, to the ticks of the file system's clock.
struct FileState {
  dev_t device = 0;
  ino_t inode = 0;
  off_t size = 0;
  timespec modified{};
  timespec touched{};  // of whatever the file system keeps of it: the content, the time above, owner, links
};

/// Maps a regular file MAP_SHARED and PROT_READ. Immutable, so safe to use from many threads; unmapped with its last
/// owner. The pages are the file's: who writes into it changes them, who cuts it short takes them away, so readers
/// read in a scope of MappedReads and ask afterwards whether the file is unchanged. A new file renamed over this one
/// changes nothing here.
class MappedFile {
 public:
  /// Throws std::system_error, with errno and the path, where the file cannot be opened or mapped, and Error(kModel)
  /// where it is not a regular file. Symbolic links are followed: the caller chose the path. An empty file maps to no
  /// bytes.
  static std::shared_ptr<const MappedFile> open(const std::string& path);

  /// The same of an open file. `path` is its name for require_unchanged, `what` in errors.
  static std::shared_ptr<const MappedFile> map(FileDescriptor fd, const std::string& path, const std::string& what);

  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  /// The whole file; page-aligned, valid while this object lives.
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }
  const MappedRegion& region() const { return region_; }
  /// When it was opened.
  const FileState& state() const { return state_; }
  /// The same now, where any later write to the file will change what it says: its times were not set back, and are
  /// past ticks of the clock, which is waited for some milliseconds. Empty on file systems of other kinds than the
  /// usual local ones, which may keep times that are coarse, or of another machine; and where the file is not found.
  std::optional<FileState> lasting_state() const;

  /// Throws Error(kModel) where the file was written to, grew, was cut short or could not be read since it was opened;
  /// once so, for ever. One system call. A writer that puts the time of modification back is not noticed.
  void require_unchanged() const;

  /// Reads the file into memory and fills this process's page tables, so that no later read waits for the disk. A
  /// hint: it never fails. A file larger than half of the machine's memory is only announced to the kernel.
  void prefault() const noexcept;
  /// The same for a part that lies in the file and is needed at once, whatever its size.
  void prefault(std::span<const std::byte> part) const noexcept;
  /// What was read stays in the system's cache, and leaves this process's page tables until it is read again.
  void release_pages() const noexcept;

 private:
  struct Key {};

 public:
  /// For make_shared.
  MappedFile(Key, std::string path, FileDescriptor fd, const FileState& state)
      : path_(std::move(path)), fd_(std::move(fd)), state_(state) {}

 private:
  const std::string path_;
  FileDescriptor fd_;
  const FileState state_;  // when it was opened
  std::span<const std::byte> bytes_;
  MappedRegion region_;  // the same bytes
  mutable std::atomic<bool> changed_{false};
};

}  // namespace inferkit
