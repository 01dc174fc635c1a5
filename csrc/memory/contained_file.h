// Files that a file nobody vouches for names: an ONNX model's external data.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "memory/mapped_file.h"

namespace inferkit {

/// Where the data of the model at `path` may lie: the folder that the path names and, where the path leads through
/// symbolic links to another, the folder in which the file really is.
std::vector<std::string> folders_of(const std::string& path);

/// Opens `relative`, a path that a model gives, in the first of `folders` that has it. Symbolic links are followed
/// where what they lead to lies in one of `folders`, as in the caches and volumes that are built of links. Refuses,
/// with Error(kModel), whatever could lead elsewhere: an absolute path, "..", a link out of `folders`, anything but a
/// regular file, an empty path, a NUL; and a file that is missing or cannot be read. `folders` themselves are trusted.
std::shared_ptr<const MappedFile> open_contained(std::span<const std::string> folders, const std::string& relative);

}  // namespace inferkit
