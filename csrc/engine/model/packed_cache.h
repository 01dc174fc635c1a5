// Where a model that is loaded finds files of packed weights: one that it is given, or those of a folder.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/compile/precision.h"
#include "graph/ir.h"
#include "memory/packed_file.h"

namespace inferkit {

/// What files of this process are for, of models in this precision.
PackedTag packed_tag(Precision precision);

/// The file at `path`. Throws std::system_error where it cannot be opened, and as PackedFile::open does.
std::shared_ptr<const PackedFile> open_packed(const std::string& path, const PackedTag& tag, const MappedFiles& model,
                                              int threads);

/// A folder that keeps files of packed weights by what they were made of, made where it is missing, for this user
/// alone. Files in it are used where they belong to this user or to root, nobody else may write to them, and they are
/// no links: who else can write into the folder can take files away, and put none in. At most kMostFiles are kept; of
/// more, those go that were written first.
class PackedCache {
 public:
  static constexpr size_t kMostFiles = 64;

  PackedCache(std::string folder, PackedTag tag) : folder_(std::move(folder)), tag_(std::move(tag)) {}

  /// The name for what this file becomes with these outputs: of the graph, and of samples of the weights. It only says
  /// where to look: models that differ between the samples take each other's place.
  std::string path_of(const ModelFile& file, const std::vector<std::string>& outputs) const;
  /// Null, and why, where there is none that can be used. Never throws for what the file or the folder is.
  std::shared_ptr<const PackedFile> find(const std::string& path, const MappedFiles& model, int threads,
                                         std::string& why) const;
  /// Makes the folder, lets `write` put a file there, and takes the oldest of too many away. Returns why it failed, or
  /// nothing.
  std::string put(const std::string& path, const std::function<void(const std::string&)>& write) const;

 private:
  void remove_old() const;
  const std::string folder_;
  const PackedTag tag_;
};

}  // namespace inferkit
