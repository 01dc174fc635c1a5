#include "graph/onnx_reader.h"

#include <algorithm>

#include "base/error.h"
#include "graph/foreign_file.h"
#include "graph/onnx_graph.h"
#include "graph/onnx_proto.h"
#include "graph/onnx_tensor.h"
#include "memory/contained_file.h"

namespace inferkit {
namespace {

ModelFile read_model(Bytes bytes, onnx::TensorLoader& tensors) {
  if (bytes.empty()) throw Error(ErrorCode::kModel, "the ONNX file is empty");
  const onnx::ModelProto proto = onnx::parse_model(bytes);
  if (!proto.ir_version || *proto.ir_version < 1)
    throw Error(ErrorCode::kModel, "the file has no ONNX IR version; is it an ONNX model?");
  if (!proto.graph) throw Error(ErrorCode::kModel, "the ONNX file has no graph");

  onnx::GraphReader reader(proto, tensors, bytes.size());
  ModelFile model;
  model.graph = reader.read_main();
  // Before version 4 of the IR every initializer had to be among the inputs, and was meant as a constant.
  if (*proto.ir_version >= 4) model.defaults = std::move(reader.defaults());
  model.opsets = reader.opsets();
  model.ir_version = *proto.ir_version;
  model.producer = proto.producer_name;
  if (!proto.producer_version.empty()) model.producer += cat(" ", proto.producer_version);
  model.version = proto.model_version;
  for (const onnx::Entry& e : proto.metadata) model.metadata.emplace(e.key, e.value);
  model.file_bytes = bytes.size() + tensors.external_bytes();
  model.files = tensors.viewed();
  model.misaligned_bytes = tensors.misaligned_bytes();
  return model;
}

ModelFile read(Bytes bytes, onnx::TensorLoader& tensors) {
  try {
    return read_model(bytes, tensors);
  } catch (const Error& error) {
    const std::string_view what = foreign_format(bytes);
    if (error.code() != ErrorCode::kModel || what.empty()) throw;
    throw Error(ErrorCode::kModel, cat("this is not an ONNX model but ", what));
  }
}

}  // namespace

ModelFile read_onnx(const std::string& path, Placement placement) {
  const auto file = MappedFile::open(path);
  onnx::TensorLoader tensors(file, folders_of(path), placement);
  return tensors.opened().guarded([&] { return read(file->bytes(), tensors); });
}

ModelFile read_onnx(std::span<const std::byte> bytes, const std::string& folder, std::shared_ptr<const void> owner) {
  std::vector<std::string> folders;
  if (!folder.empty()) folders.push_back(folder);
  onnx::TensorLoader tensors(std::move(owner), std::move(folders), Placement::kMapped);
  return tensors.opened().guarded([&] { return read(bytes, tensors); });
}

}  // namespace inferkit
