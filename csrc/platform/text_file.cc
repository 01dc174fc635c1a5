#include "platform/text_file.h"

#include <fcntl.h>

#include <cerrno>

#include "platform/file_descriptor.h"

namespace inferkit {

std::optional<std::string> read_text_file(const std::string& path) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return std::nullopt;
  std::string text;
  char part[4096];  // such files do not know their size
  while (true) {
    const ssize_t n = ::read(fd.get(), part, sizeof part);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return std::nullopt;
    if (n == 0) return text;
    text.append(part, static_cast<size_t>(n));
  }
}

}  // namespace inferkit
