// TensorProto to Tensor: a view of the mapped file where encoding allows it, which is copied when it is first read
// where alignment does not; else a converted copy.
// Nothing is allocated before the bytes that a tensor claims have been found in a file.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "base/cat.h"
#include "base/error.h"
#include "graph/ir.h"
#include "graph/onnx_proto.h"
#include "memory/copy_room.h"
#include "memory/mapped_files.h"

namespace inferkit::onnx {

/// The file is wrong: Error(kModel).
[[noreturn]] inline void fail(const std::string& message) { throw Error(ErrorCode::kModel, message); }
[[noreturn]] inline void fail(const std::string& what, std::string_view why) { fail(cat(what, " ", why)); }

/// The dtype of TensorProto.DataType `code`; nullopt for those that inferkit lacks.
std::optional<DType> dtype_of(int32_t code);
/// "FLOAT8E4M3FN", or "data type 99", for messages.
std::string dtype_text(int32_t code);

/// One per file that is read; not thread-safe.
class TensorLoader {
 public:
  /// Of a model in memory, which `owner` keeps alive; null: copy every tensor. External data is looked for in
  /// `folders`, as open_contained() does, and refused where there are none.
  TensorLoader(std::shared_ptr<const void> owner, std::vector<std::string> folders, Placement placement)
      : source_{std::move(owner), nullptr}, folders_(std::move(folders)), placement_(placement) {}
  /// Of a model in a file.
  TensorLoader(std::shared_ptr<const MappedFile> file, std::vector<std::string> folders, Placement placement)
      : TensorLoader(std::shared_ptr<const void>(file), std::move(folders), placement) {
    source_.file = file.get();
    opened_.add(std::move(file));
  }

  /// `what` names the tensor in messages: "initializer 'w'". The same message loaded twice is one tensor in memory.
  Tensor load(Bytes message, const std::string& what);
  /// The dense tensor that a sparse one stands for.
  Tensor load_sparse(const SparseTensorProto& proto, const std::string& what);
  /// The sizes of the external files that were opened, summed.
  size_t external_bytes() const { return external_bytes_; }
  /// What is read while tensors are loaded.
  const MappedFiles& opened() const { return opened_; }
  /// What the tensors are views of, or will be copied from.
  const MappedFiles& viewed() const { return viewed_; }
  /// The bytes that are copied when they are read, only because the file puts them at odd addresses.
  size_t misaligned_bytes() const { return misaligned_bytes_; }

 private:
  /// Where bytes are.
  struct Source {
    std::shared_ptr<const void> owner;  // null: they may not be kept
    const MappedFile* file = nullptr;   // the owner, where it is a file
  };
  Tensor load_raw(DType dtype, const Shape& shape, Bytes data, const Source& source, const std::string& what);
  bool worth_mapping(DType dtype, size_t bytes) const;
  Tensor load_external(const TensorProto& proto, DType dtype, const Shape& shape, const std::string& what);
  std::shared_ptr<const MappedFile> open(std::string_view location, const std::string& what);

  Source source_;
  std::vector<std::string> folders_;
  Placement placement_;
  MappedFiles opened_, viewed_;
  CopyRoom copies_;  // of large tensors of files
  std::map<const std::byte*, Tensor> loaded_;
  /// By location; null where there are too many to keep open.
  std::map<std::string, std::shared_ptr<const MappedFile>, std::less<>> files_;
  std::map<std::tuple<std::string, size_t, size_t, DType>, Tensor> external_copies_;
  size_t external_bytes_ = 0;
  size_t sparse_allowance_ = size_t{64} << 20;  // bytes that sparse tensors may still grow to
  size_t copied_bytes_ = 0;
  size_t misaligned_bytes_ = 0;
};

}  // namespace inferkit::onnx
