// The small files of text in which the kernel tells about itself.
#pragma once
#include <optional>
#include <string>

namespace inferkit {

/// All of the file; nullopt where it cannot be read.
std::optional<std::string> read_text_file(const std::string& path);

}  // namespace inferkit
