#include "memory/contained_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace inferkit {
namespace {

/// Without symbolic links; nothing, with errno set, where the path does not exist.
std::optional<std::string> real_path(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> found(::realpath(path.c_str(), nullptr), std::free);
  return found ? std::optional<std::string>(found.get()) : std::nullopt;
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, std::max<size_t>(slash, 1));
}

/// How a walk ended: at a file, at a link, or with the error `error`.
struct Walk {
  FileDescriptor file{-1};
  std::string link{};
  int error = 0;
};

/// One component at a time from an open folder, never through a link and never upwards: whatever others rename
/// meanwhile, the walk stays below the folder. Does what openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS) does, on any
/// kernel and under any seccomp filter.
Walk walk(const std::string& folder, std::string_view relative) {
  FileDescriptor at(::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!at) return {.error = errno};
  for (size_t begin = 0; begin <= relative.size();) {
    const size_t end = std::min(relative.find('/', begin), relative.size());
    const bool last = end == relative.size();
    const std::string component(relative.substr(begin, end - begin));
    begin = end + 1;
    if (component.empty() || component == ".") continue;
    FileDescriptor next(
        ::openat(at.get(), component.c_str(),
                 O_NOFOLLOW | (last ? kReadFlags : static_cast<int>(O_PATH | O_DIRECTORY | O_CLOEXEC))));
    if (!next) {
      const int error = errno;
      struct stat link;
      const bool found = ::fstatat(at.get(), component.c_str(), &link, AT_SYMLINK_NOFOLLOW) == 0;
      if (found && S_ISLNK(link.st_mode)) return {.link = component};
      return {.error = error};
    }
    at = std::move(next);
  }
  return {.file = std::move(at)};
}

/// What of `path` follows `folder`, both real; nothing where it lies elsewhere.
std::optional<std::string_view> below(std::string_view path, std::string_view folder) {
  if (!folder.ends_with('/')) {
    if (!path.starts_with(folder)) return std::nullopt;
    path.remove_prefix(folder.size());
    folder = "/";
  }
  if (!path.starts_with(folder)) return std::nullopt;
  return path.substr(folder.size());
}

}  // namespace

std::vector<std::string> folders_of(const std::string& path) {
  std::vector<std::string> folders{folder_of(path)};
  const auto named = real_path(folders.front()), real = real_path(path);
  if (real && named != folder_of(*real)) folders.push_back(folder_of(*real));
  return folders;
}

std::shared_ptr<const MappedFile> open_contained(std::span<const std::string> folders, const std::string& relative) {
  const std::string what = cat("external data ", quote(relative));
  const auto refuse = [&](const std::string& why) -> Error {
    return Error(ErrorCode::kModel,
                 cat(what, " ", why, "; it must be a file inside the model's folder ", folders.front()));
  };
  if (relative.empty()) throw refuse("has an empty path");
  if (relative.find('\0') != std::string::npos) throw refuse("holds a NUL character");
  if (relative.front() == '/') throw refuse("is an absolute path");
  if (relative.size() >= PATH_MAX) throw refuse("has a path that is too long");
  std::string_view name;
  for (size_t begin = 0, end = 0; end != relative.size(); begin = end + 1) {
    end = std::min(relative.find('/', begin), relative.size());
    name = std::string_view(relative).substr(begin, end - begin);
    if (name == "..") throw refuse("leads out of the folder with '..'");
  }
  if (name.empty() || name == ".") throw refuse("names a directory");

  // The real path is only a hint of where to walk: the walk from a trusted folder, without links, is what holds.
  const auto follow = [&](const std::string& path, const std::string& link) -> Walk {
    const auto real = real_path(path);
    if (!real) return {.error = errno};
    for (const std::string& folder : folders) {
      const auto root = real_path(folder);
      const auto rest = root ? below(*real, *root) : std::nullopt;
      if (!rest) continue;
      Walk found = walk(*root, *rest);
      if (!found.link.empty()) break;
      return found;
    }
    throw refuse(cat("goes through the symbolic link ", quote(link), " to ", quote(*real)));
  };
  int error = 0;  // of the first folder
  for (const std::string& folder : folders) {
    const std::string path = folder.ends_with('/') ? cat(folder, relative) : cat(folder, "/", relative);
    Walk found = walk(folder, relative);
    if (!found.link.empty()) found = follow(path, found.link);
    if (found.file) return MappedFile::map(std::move(found.file), path, what);
    if (error == 0) error = found.error;
    if (found.error != ENOENT) break;
  }
  throw Error(ErrorCode::kModel, cat(what, " in ", folders.front(), " cannot be opened: ", std::strerror(error)));
}

}  // namespace inferkit
