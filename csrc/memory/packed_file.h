// A file of packed weights that other processes map too; and how one is written.
#pragma once
#include <sys/types.h>

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "memory/mapped_files.h"
#include "memory/packed_format.h"

namespace inferkit {

/// All of it was checked when it was opened, and it fits the model that it was opened for. Immutable. The pages are the
/// file's, as those of any mapped file: whoever reads them asks file() whether it is unchanged.
class PackedFile {
 public:
  /// Throws Error(kModel) that says why it cannot be used: it is no packed file, was damaged or cut short, is for
  /// another build, tier or precision, or was made of other weights than those of `model`. What the model's files hold
  /// is read where their times do not tell that they are the ones it was made of. `what` is the file, for messages; up
  /// to `threads` threads check it.
  static std::shared_ptr<const PackedFile> open(std::shared_ptr<const MappedFile> file, const std::string& what,
                                                const PackedTag& tag, const MappedFiles& model, int threads);

  /// The section of that name and size; null where there is none.
  const std::byte* find(const PackedName& name, size_t bytes) const;
  const std::shared_ptr<const MappedFile>& file() const { return file_; }
  const KeyedHash& hash() const { return hash_; }
  size_t sections() const { return sections_.size(); }

 private:
  struct Section {
    uint64_t offset = 0, bytes = 0;  // in the file
  };
  PackedFile(std::shared_ptr<const MappedFile> file, const KeyedHash::Key& key) : file_(std::move(file)), hash_(key) {}

  const std::shared_ptr<const MappedFile> file_;
  const KeyedHash hash_;
  std::map<PackedName, Section> sections_;
};

/// `data` as a source: by its place in one of the model's files, else by its digest. In a file, the digest is left out
/// where `with_digest` is false.
PackedSource packed_source(std::span<const std::byte> data, const MappedFiles& model, const KeyedHash& hash,
                           bool with_digest, int threads);

/// Packed weights, and the bytes that they were made of.
struct PackedPiece {
  PackedName name;  // without its sources
  std::vector<std::span<const std::byte>> from;
  std::span<const std::byte> data;
};

/// Writes a file with these beside `path` and renames it to that, so that a file of this name is always whole. Throws
/// std::system_error, with errno and the path, and then leaves what was there. Error(kModel) where a file of the model
/// has been touched since it was opened, so that what was packed may be of something else, or one of `others`, which
/// are what else the pieces lie in, has changed.
void write_packed_file(const std::string& path, mode_t mode, const PackedTag& tag, const MappedFiles& model,
                       const MappedFiles& others, std::span<const PackedPiece> pieces, int threads);

}  // namespace inferkit
