#include "memory/weight_store.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "memory/mapped_file.h"
#include "memory/safetensors.h"
#include "platform/aligned_alloc.h"
#include "platform/run_control.h"

namespace inferkit {
namespace {

/// Where `view` is of bools and a byte of it is neither 0 nor 1: a copy in which it is 1, as for whatever reads a bool.
/// Else null.
AlignedArray<std::byte> canonical_copy(const TensorView& view) {
  if (view.dtype != DType::kBool) return nullptr;
  const auto* bytes = static_cast<const std::byte*>(view.data);
  std::byte seen{0};
  in_blocks(view.shape.elements(), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) seen |= bytes[i];
  });
  RunControl::check();
  if (seen <= std::byte{1}) return nullptr;
  auto copy = make_aligned<std::byte>(view.bytes());
  in_blocks(view.shape.elements(), [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) copy[static_cast<size_t>(i)] = std::byte{bytes[i] != std::byte{0}};
  });
  RunControl::check();
  return copy;
}

/// What views of a file need: it, or a copy of it, and tensors that are not as it has them.
struct Kept {
  std::shared_ptr<const void> file;
  std::vector<AlignedArray<std::byte>> copies;
};

}  // namespace

std::shared_ptr<const Weights> Weights::open_safetensors(const std::string& path, Placement placement) {
  const auto file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  MappedFiles files;
  files.add(file);
  return files.guarded([&] {
    SafetensorsIndex index = parse_safetensors(bytes, path);
    const auto owner = std::make_shared<Kept>();
    owner->file = file;
    const std::byte* base = bytes.data();
    if (placement == Placement::kCopied) {
      std::shared_ptr<std::byte> copy(make_aligned<std::byte>(bytes.size()).release(), AlignedDelete());
      copy_in_blocks(copy.get(), base, bytes.size());
      RunControl::check();  // where it is to stop, some blocks were left out
      base = copy.get();
      owner->file = std::move(copy);
    } else {
      file->prefault();  // only now: a file that lies is refused before it is read
    }
    std::vector<NamedTensor> tensors;
    tensors.reserve(index.tensors.size());
    for (SafetensorsEntry& entry : index.tensors) {
      TensorView view{entry.dtype, entry.shape, base + entry.offset};
      if (auto copy = canonical_copy(view)) {
        view.data = copy.get();
        owner->copies.push_back(std::move(copy));
      }
      tensors.push_back({std::move(entry.name), view});
    }
    return std::make_shared<const Weights>(std::move(tensors), owner, std::move(index.metadata), path, bytes.size(),
                                           placement == Placement::kMapped ? files : MappedFiles());
  });
}

Weights::Weights(std::vector<NamedTensor> tensors, std::shared_ptr<const void> owner,
                 std::map<std::string, std::string> metadata, std::string path, size_t file_bytes, MappedFiles files)
    : tensors_(std::move(tensors)),
      by_name_(tensors_.size()),
      owner_(std::move(owner)),
      metadata_(std::move(metadata)),
      path_(std::move(path)),
      file_bytes_(file_bytes),
      files_(std::move(files)) {
  std::iota(by_name_.begin(), by_name_.end(), size_t{0});
  std::sort(by_name_.begin(), by_name_.end(), [&](size_t a, size_t b) { return tensors_[a].name < tensors_[b].name; });
  for (size_t i = 1; i < by_name_.size(); ++i) {
    const std::string& name = tensors_[by_name_[i]].name;
    if (name != tensors_[by_name_[i - 1]].name) continue;
    throw Error(ErrorCode::kModel, cat(path_.empty() ? "weights" : path_, ": tensor ", quote(name), " comes twice"));
  }
  for (const NamedTensor& tensor : tensors_) bytes_ += tensor.view.bytes();
}

const TensorView* Weights::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](size_t i, std::string_view wanted) { return tensors_[i].name < wanted; });
  if (at == by_name_.end() || tensors_[*at].name != name) return nullptr;
  return &tensors_[*at].view;
}

std::vector<std::string> Weights::names() const {
  std::vector<std::string> out;
  out.reserve(tensors_.size());
  for (const NamedTensor& tensor : tensors_) out.push_back(tensor.name);
  return out;
}

bool is_aligned(const TensorView& view) {
  const size_t alignment = std::max<size_t>(dtype_size(view.dtype), 1);
  return reinterpret_cast<uintptr_t>(view.data) % alignment == 0;
}

}  // namespace inferkit
