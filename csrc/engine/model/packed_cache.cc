#include "engine/model/packed_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <system_error>
#include <tuple>

#include "base/file_error.h"
#include "base/text.h"
#include "platform/build_id.h"
#include "platform/isa.h"
#include "platform/run_control.h"
#include "platform/stoppable.h"

namespace inferkit {
namespace {

constexpr std::string_view kEnding = ".packed";

/// Names are no secret: two users' folders may give a model the same.
const KeyedHash& name_hash() {
  static const KeyedHash hash({1, 2, 3, 4});
  return hash;
}

std::string hexadecimal(const Digest& digest) {
  char out[33];
  std::snprintf(out, sizeof(out), "%016llx%016llx", static_cast<unsigned long long>(digest.first),
                static_cast<unsigned long long>(digest.second));
  return out;
}

void add(std::string& text, std::string_view part) {
  text += part;
  text += '\0';
}

/// As path_of makes them.
bool is_ours(std::string_view name) {
  constexpr size_t kDigits = 2 * sizeof(Digest);
  return name.substr(0, name.find('.')).size() == kDigits && name.substr(kDigits).starts_with(kEnding) &&
         name.find_first_not_of("0123456789abcdef") == kDigits;
}

/// Some pages of a file, spread over it, the first and the last among them.
void add_samples(std::string& text, const MappedFile& file) {
  constexpr size_t kSamples = 64, kBytes = 512;
  const auto bytes = file.bytes();
  add(text, cat(bytes.size()));
  if (bytes.size() <= kSamples * kBytes) {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return;
  }
  for (size_t i = 0; i < kSamples; ++i) {
    const size_t at = (bytes.size() - kBytes) / (kSamples - 1) * i;
    text.append(reinterpret_cast<const char*>(bytes.data()) + at, kBytes);
  }
}

/// Makes it and what it lies in, for this user alone.
void make_folder(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      if (end == std::string::npos) throw FileError(errno, path);
    }
    if (end == std::string::npos) return;
  }
}

/// Why nobody should believe it; empty where all is well.
std::string mistrust(int fd) {
  struct stat info;
  if (::fstat(fd, &info) != 0) return std::strerror(errno);
  if (info.st_uid != ::geteuid() && info.st_uid != 0) return cat("it belongs to user ", info.st_uid);
  if ((info.st_mode & (S_IWGRP | S_IWOTH)) != 0) return "others may write to it";
  return {};
}

}  // namespace

PackedTag packed_tag(Precision precision) {
  return {build_id(), std::string(isa_name(active_isa())), std::string(precision_name(precision))};
}

std::shared_ptr<const PackedFile> open_packed(const std::string& path, const PackedTag& tag, const MappedFiles& model,
                                              int threads) {
  return PackedFile::open(MappedFile::open(path), cat("the packed file ", quote(path)), tag, model, threads);
}

std::string PackedCache::path_of(const ModelFile& file, const std::vector<std::string>& outputs) const {
  std::string text;
  for (const std::string* part : {&tag_.build, &tag_.tier, &tag_.precision}) add(text, *part);
  for (const std::string& name : outputs) add(text, name);
  for (const Node& node : stoppable(file.graph.nodes)) {
    add(text, node.op_type);
    add(text, node.name);
  }
  for (const auto& mapped : file.files.all()) add_samples(text, *mapped);
  return cat(folder_, "/", hexadecimal(name_hash().of(std::as_bytes(std::span(text)))), kEnding);
}

std::shared_ptr<const PackedFile> PackedCache::find(const std::string& path, const MappedFiles& model, int threads,
                                                    std::string& why) const {
  try {
    FileDescriptor fd(::open(path.c_str(), kReadFlags | O_NOFOLLOW));
    if (!fd) {
      if (errno == ENOENT) why = "there is none yet";
      if (errno != ENOENT) why = errno == ELOOP ? "it is a link" : std::strerror(errno);
      return nullptr;
    }
    why = mistrust(fd.get());
    if (!why.empty()) return nullptr;
    return PackedFile::open(MappedFile::map(std::move(fd), path, "the packed file"), "the packed file", tag_, model,
                            threads);
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    model.require_unchanged();  // that is no fault of the file
    why = error.what();
  } catch (const std::system_error& error) {
    why = error.what();
  }
  return nullptr;
}

std::string PackedCache::put(const std::string& path, const std::function<void(const std::string&)>& write) const {
  try {
    make_folder(folder_);
    write(path);
    remove_old();
  } catch (const Stopped&) {
    throw;
  } catch (const Error& error) {
    return error.what();
  } catch (const std::system_error& error) {
    return error.what();
  }
  return {};
}

void PackedCache::remove_old() const {
  constexpr time_t kHour = 3600;  // what is written takes less
  struct Found {
    timespec written;
    std::string path;
  };
  std::vector<Found> files;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(folder_.c_str()), ::closedir);
  if (!folder) return;
  while (const dirent* entry = ::readdir(folder.get())) {
    const std::string_view name = entry->d_name;
    const std::string path = cat(folder_, "/", name);
    const bool draft = name.ends_with(".tmp");
    struct stat info;
    if (!is_ours(name) || (!draft && !name.ends_with(kEnding)) || ::lstat(path.c_str(), &info) != 0) continue;
    if (!draft) {
      files.push_back({info.st_mtim, path});
    } else if (info.st_mtime < ::time(nullptr) - kHour) {
      ::unlink(path.c_str());  // whoever wrote it is gone
    }
  }
  std::ranges::sort(files, [](const Found& a, const Found& b) {
    return std::tie(a.written.tv_sec, a.written.tv_nsec) < std::tie(b.written.tv_sec, b.written.tv_nsec);
  });
  for (size_t i = 0; i + kMostFiles < files.size(); ++i) ::unlink(files[i].path.c_str());
}

}  // namespace inferkit
