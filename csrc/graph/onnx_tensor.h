// TensorProto to Tensor: a view of the mapped file where alignment and encoding allow it, else a converted copy.
// Nothing is allocated before the bytes that a tensor claims have been found in a file.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "graph/ir.h"
#include "graph/onnx_proto.h"

namespace inferkit {

class MappedFile;

namespace onnx {

/// The dtype of TensorProto.DataType `code`; nullopt for those that inferkit lacks.
std::optional<DType> dtype_of(int32_t code);
/// "FLOAT8E4M3FN", or "data type 99", for messages.
std::string dtype_text(int32_t code);

/// One per file that is read; not thread-safe.
class TensorLoader {
 public:
  /// `owner` keeps the model's bytes alive; null: copy every tensor. External data is looked for in `folder`, and
  /// refused where there is none.
  TensorLoader(std::shared_ptr<const void> owner, std::optional<std::string> folder)
      : owner_(std::move(owner)), folder_(std::move(folder)) {}

  /// `what` names the tensor in messages: "initializer 'w'". The same message loaded twice is one tensor in memory.
  Tensor load(Bytes message, const std::string& what);
  /// The sizes of the external files that were opened, summed.
  size_t external_bytes() const { return external_bytes_; }

 private:
  Tensor load_raw(DType dtype, const Shape& shape, Bytes data, const std::shared_ptr<const void>& owner,
                  const std::string& what) const;
  Tensor load_external(const TensorProto& proto, DType dtype, const Shape& shape, const std::string& what);
  std::shared_ptr<const MappedFile> open(std::string_view location, const std::string& what);

  std::shared_ptr<const void> owner_;
  std::optional<std::string> folder_;
  std::map<const std::byte*, Tensor> loaded_;
  std::map<std::string, std::shared_ptr<const MappedFile>, std::less<>> files_;
  std::map<std::tuple<const std::byte*, size_t, DType>, Tensor> external_copies_;
  size_t external_bytes_ = 0;
  size_t copied_bytes_ = 0;
};

}  // namespace onnx
}  // namespace inferkit
