// The files that a model or a plan reads while it runs.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <vector>

#include "memory/mapped_file.h"

namespace inferkit {

/// Where the weights of a file are kept.
enum class Placement : uint8_t {
  kMapped,  // in the file's own pages, shared with every process that maps it; small or unaligned ones in copies
  kCopied,  // in memory of their own
};

/// A set of mappings, each kept alive.
class MappedFiles {
 public:
  void add(std::shared_ptr<const MappedFile> file);
  void remove(const MappedFile& file);
  bool empty() const { return files_.empty(); }
  size_t size() const { return files_.size(); }
  /// In the order in which they were added.
  std::span<const std::shared_ptr<const MappedFile>> all() const { return files_; }
  /// The one that holds the byte at `data`; null where none does.
  const std::shared_ptr<const MappedFile>* find(const void* data) const;

  /// Throws Error(kModel) where one of them is no longer what was mapped.
  void require_unchanged() const;

  /// The result of `read`, which reads the files, or what it throws; but Error(kModel) where a file changed before it
  /// was done, in place of any result or exception that came of reading other bytes. A missing page is survived.
  template <class Read>
  std::invoke_result_t<Read&> guarded(Read&& read) const {
    const MappedReads reads(regions_);
    try {
      if constexpr (std::is_void_v<std::invoke_result_t<Read&>>) {
        read();
        require_unchanged();
      } else {
        auto result = read();
        require_unchanged();
        return result;
      }
    } catch (...) {
      require_unchanged();
      throw;
    }
  }

 private:
  std::vector<std::shared_ptr<const MappedFile>> files_;
  MappedRegions regions_;  // theirs
};

}  // namespace inferkit
