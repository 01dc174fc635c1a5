// Writing a file of packed weights.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/error.h"
#include "base/file_error.h"
#include "base/text.h"
#include "memory/packed_file.h"
#include "platform/file_descriptor.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

[[noreturn]] void fail(const std::string& path) { throw FileError(errno, path); }

/// A file of a name of its own, which goes away unless it is given its real one.
class Draft {
 public:
  Draft(std::string path, mode_t mode) : path_(std::move(path)) {
    constexpr int kTries = 16;
    for (int i = 0; i < kTries; ++i) {
      draft_ = cat(path_, ".", KeyedHash::random_key()[0], ".tmp");
      fd_ = FileDescriptor(::open(draft_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
      if (fd_) return;
      if (errno != EEXIST) break;
    }
    fail(path_);
  }
  ~Draft() {
    if (fd_) ::unlink(draft_.c_str());
  }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  void write(std::span<const std::byte> bytes) {
    constexpr size_t kPart = size_t{8} << 20;
    while (!bytes.empty()) {
      RunControl::check();
      const ssize_t done = ::write(fd_.get(), bytes.data(), std::min(kPart, bytes.size()));
      if (done < 0 && errno != EINTR) fail(path_);
      if (done > 0) bytes = bytes.subspan(static_cast<size_t>(done));
    }
  }
  void fill_to(uint64_t& at, uint64_t target) {
    static constexpr std::byte kZeros[kPackedPage] = {};
    write(std::span(kZeros, static_cast<size_t>(target - at)));
    at = target;
  }
  void finish() {
    // Whoever finds the name finds all of it, also after the machine went down in between.
    if (::fsync(fd_.get()) != 0) fail(path_);
    if (::rename(draft_.c_str(), path_.c_str()) != 0) fail(path_);
    fd_ = FileDescriptor(-1);
  }

 private:
  const std::string path_;
  std::string draft_;
  FileDescriptor fd_{-1};
};

/// Each as it was when it was opened. Where its times tell nothing, its size alone.
std::vector<ModelFileState> states_of(const MappedFiles& model) {
  std::vector<ModelFileState> out;
  for (const auto& file : model.all()) {
    const ModelFileState opened = model_file_state(file->state());
    const auto now = file->lasting_state();
    if (now && model_file_state(*now) != opened) {
      throw Error(ErrorCode::kModel, cat("the file ", quote(file->path()),
                                         " has been touched since the model was loaded, so that what was "
                                         "packed may not be what it holds: load the model again"));
    }
    out.push_back(now ? opened : ModelFileState());
    out.back().bytes = opened.bytes;
  }
  return out;
}

}  // namespace

void write_packed_file(const std::string& path, mode_t mode, const PackedTag& tag, const MappedFiles& model,
                       const MappedFiles& others, std::span<const PackedPiece> pieces, int threads) {
  if (path.find('\0') != std::string::npos) throw std::invalid_argument("a path may not hold a NUL character");
  if (tag.build.empty()) {
    throw Error(ErrorCode::kModel,
                "this build of inferkit has no build id, so that no file of packed weights can be "
                "written for it");
  }
  const auto header_of = [&] {
    PackedHeader out{.key = KeyedHash::random_key(), .tag = tag, .files = states_of(model), .sections = {}};
    const KeyedHash hash(out.key);
    uint64_t at = 0;
    for (const PackedPiece& piece : pieces) {
      PackedSection section{piece.name, at, piece.data.size(), {}};
      for (const auto& from : piece.from) section.name.from.push_back(packed_source(from, model, hash, true, threads));
      section.digest = hash.of_large(piece.data, threads);
      at = PackedHeader::body_at(at + section.bytes);
      out.sections.push_back(std::move(section));
    }
    return out;
  };
  MappedFiles read = model;
  for (const auto& file : others.all()) read.add(file);
  const PackedHeader header = read.guarded(header_of);
  Draft draft(path, mode);
  const std::vector<std::byte> head = packed_header_bytes(header);
  draft.write(head);
  uint64_t at = head.size();
  const uint64_t body = PackedHeader::body_at(at);
  for (size_t i = 0; i < pieces.size(); ++i) {
    draft.fill_to(at, body + header.sections[i].offset);
    draft.write(pieces[i].data);
    at += pieces[i].data.size();
  }
  if (pieces.empty()) draft.fill_to(at, body);
  // Before anybody can see it: what was read must have been what was opened, up to now.
  read.require_unchanged();
  states_of(model);
  draft.finish();
}

}  // namespace inferkit
