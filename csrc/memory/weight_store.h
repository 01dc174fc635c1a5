// Named, immutable tensors in memory that many models, threads and processes share.
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor_view.h"
#include "memory/mapped_files.h"

namespace inferkit {

struct NamedTensor {
  std::string name;
  TensorView view;
};

/// Views onto memory that `owner` keeps alive, usually a mapped file. Immutable, so safe to share.
class Weights {
 public:
  /// Maps the file, checks all of its header, and reads its pages ahead; or reads it into memory. Bools whose
  /// bytes are neither 0 nor 1 are copied, and are 1 in the copy. Throws as MappedFile::open and parse_safetensors do.
  static std::shared_ptr<const Weights> open_safetensors(const std::string& path,
                                                         Placement placement = Placement::kMapped);

  /// Tensors of any origin; `files` are those that they are views of. Throws Error(kModel) where a name comes twice.
  Weights(std::vector<NamedTensor> tensors, std::shared_ptr<const void> owner,
          std::map<std::string, std::string> metadata = {}, std::string path = {}, size_t file_bytes = 0,
          MappedFiles files = {});

  /// nullptr where there is none of that name. The view lives as long as this object.
  const TensorView* find(std::string_view name) const;
  /// Throws Error(kModel) where a file changed under the views.
  void require_unchanged() const { files_.require_unchanged(); }
  /// In the order of the file.
  std::span<const NamedTensor> tensors() const { return tensors_; }
  std::vector<std::string> names() const;
  size_t size() const { return tensors_.size(); }

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// The file they came from; "" where they came from none.
  const std::string& path() const { return path_; }
  size_t file_bytes() const { return file_bytes_; }
  /// The tensors' own bytes, summed.
  size_t bytes() const { return bytes_; }
  /// What keeps the memory alive; hand it on to whatever outlives this object.
  const std::shared_ptr<const void>& owner() const { return owner_; }

 private:
  std::vector<NamedTensor> tensors_;
  std::vector<size_t>
      by_name_;  // indices into tensors_, sorted by name: no hash that a hostile file could make collide
  std::shared_ptr<const void> owner_;
  std::map<std::string, std::string> metadata_;
  std::string path_;
  size_t file_bytes_ = 0;
  MappedFiles files_;
  size_t bytes_ = 0;
};

/// False where the tensor starts at an address that its element type may not be read from directly (a safetensors file
/// promises no alignment): copy such a tensor before computing with it.
bool is_aligned(const TensorView& view);

}  // namespace inferkit
