#include "memory/mapped_files.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace inferkit {

void MappedFiles::add(std::shared_ptr<const MappedFile> file) {
  if (std::find(files_.begin(), files_.end(), file) != files_.end()) return;
  regions_.reserve(files_.size() + 1);
  files_.push_back(std::move(file));
  regions_.push_back(&files_.back()->region());
}

void MappedFiles::remove(const MappedFile& file) {
  std::erase(regions_, &file.region());
  std::erase_if(files_, [&](const auto& f) { return f.get() == &file; });
}

const std::shared_ptr<const MappedFile>* MappedFiles::find(const void* data) const {
  const auto* at = static_cast<const std::byte*>(data);
  for (const auto& file : files_) {
    const auto bytes = file->bytes();
    if (std::less_equal<>()(bytes.data(), at) && std::less<>()(at, bytes.data() + bytes.size())) return &file;
  }
  return nullptr;
}

void MappedFiles::require_unchanged() const {
  for (const auto& file : files_) file->require_unchanged();
}

}  // namespace inferkit
