#include "memory/packed_file.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "base/counted.h"
#include "base/error.h"
#include "base/text.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

Error misfit(const std::string& what, const std::string& why) {
  return Error(ErrorCode::kModel, cat(what, " does not fit: ", why, "; write it again with Model.save_packed()"));
}

void require_tag(const PackedTag& has, const PackedTag& wanted, const std::string& what) {
  if (has.tier != wanted.tier) {
    throw misfit(what, cat("it was made for the instruction sets ", quote(has.tier), ", and this process uses ",
                           quote(wanted.tier)));
  }
  if (has.precision != wanted.precision) {
    throw misfit(what, cat("it was made for the precision ", quote(has.precision), ", and this model computes in ",
                           quote(wanted.precision)));
  }
  if (has.build != wanted.build) {
    throw misfit(what,
                 cat("another build of inferkit wrote it, ", quote(has.build), "; this is ", quote(wanted.build)));
  }
}

/// Whether the times say that the model's files are the ones that the packed file was made of.
bool times_agree(const PackedHeader& header, const MappedFiles& model) {
  for (size_t i = 0; i < header.files.size(); ++i) {
    const auto now = model.all()[i]->lasting_state();
    // As it was when it was opened, and as it is now: what was read came between them.
    if (!now || model_file_state(*now) != header.files[i] ||
        model_file_state(model.all()[i]->state()) != header.files[i]) {
      return false;
    }
  }
  return true;
}

void require_model(const PackedHeader& header, const KeyedHash& hash, const std::string& what, const MappedFiles& model,
                   int threads) {
  if (header.files.size() != model.size()) {
    throw misfit(what, cat("it was made of a model with weights in ", counted(header.files.size(), "file"),
                           ", and this one has them in ", model.size()));
  }
  for (size_t i = 0; i < header.files.size(); ++i) {
    const size_t bytes = model.all()[i]->bytes().size();
    if (header.files[i].bytes != bytes) {
      throw misfit(what, cat("it was made of another model: ", quote(model.all()[i]->path()), " has ",
                             counted(bytes, "byte"), ", and had ", header.files[i].bytes));
    }
  }
  if (times_agree(header, model)) return;
  std::set<std::tuple<uint32_t, uint64_t, uint64_t>> seen;
  for (const PackedSection& section : header.sections) {
    for (const PackedSource& s : section.name.from) {
      if (s.file == PackedSource::kInMemory || !seen.emplace(s.file, s.offset, s.bytes).second) continue;
      const auto bytes = model.all()[s.file]->bytes();
      const bool inside = s.offset <= bytes.size() && s.bytes <= bytes.size() - s.offset;
      if (inside && hash.of_large(bytes.subspan(s.offset, s.bytes), threads) == s.digest) continue;
      throw misfit(what, cat("it was made of other weights than those that are in ", quote(model.all()[s.file]->path()),
                             " at byte ", s.offset));
    }
  }
}

}  // namespace

std::shared_ptr<const PackedFile> PackedFile::open(std::shared_ptr<const MappedFile> file, const std::string& what,
                                                   const PackedTag& tag, const MappedFiles& model, int threads) {
  if (tag.build.empty()) throw misfit(what, "this build of inferkit has no build id, by which it could be told");
  MappedFiles mapped = model;  // both are read
  mapped.add(file);
  const auto read = [&] {
    uint64_t body = 0;
    PackedHeader header = read_packed_header(file->bytes(), what, body);
    require_tag(header.tag, tag, what);
    const std::shared_ptr<PackedFile> out(new PackedFile(file, header.key));
    require_model(header, out->hash_, what, model, threads);
    for (PackedSection& section : header.sections) {
      const auto bytes = file->bytes().subspan(body + section.offset, section.bytes);
      file->prefault(bytes);
      if (out->hash_.of_large(bytes, threads) != section.digest) {
        throw Error(ErrorCode::kModel,
                    cat(what, " is damaged: the weights at byte ", body + section.offset, " are not what was written"));
      }
      for (PackedSource& s : section.name.from) {
        if (s.file != PackedSource::kInMemory) s.digest = {};
      }
      out->sections_.insert_or_assign(std::move(section.name), Section{body + section.offset, section.bytes});
    }
    return out;
  };
  return mapped.guarded(read);
}

const std::byte* PackedFile::find(const PackedName& name, size_t bytes) const {
  const auto it = sections_.find(name);
  if (it == sections_.end() || it->second.bytes != bytes) return nullptr;
  return file_->bytes().data() + it->second.offset;
}

PackedSource packed_source(std::span<const std::byte> data, const MappedFiles& model, const KeyedHash& hash,
                           bool with_digest, int threads) {
  PackedSource out;
  out.bytes = data.size();
  for (size_t i = 0; i < model.size() && out.file == PackedSource::kInMemory; ++i) {
    const auto bytes = model.all()[i]->bytes();
    if (!std::less<>()(data.data(), bytes.data()) && std::less<>()(data.data(), bytes.data() + bytes.size())) {
      out.file = static_cast<uint32_t>(i);
      out.offset = static_cast<uint64_t>(data.data() - bytes.data());
    }
  }
  if (with_digest || out.file == PackedSource::kInMemory) out.digest = hash.of_large(data, threads);
  return out;
}

}  // namespace inferkit
