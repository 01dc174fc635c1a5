// The messages of onnx.proto as views: names and payloads point into the bytes that were parsed, nested messages stay
// bytes until someone parses them. Only the fields that inferkit reads are kept; the others are skipped. A list is no
// longer than half the bytes of its message, which is what bounds it: an element takes two at least.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/shape.h"
#include "graph/wire.h"

namespace inferkit::onnx {

struct OpsetId {
  std::string_view domain;  // "ai.onnx" is normalised to ""
  int64_t version = 0;
};

struct Entry {  // StringStringEntryProto
  std::string_view key, value;
};

struct ModelProto {
  std::optional<int64_t> ir_version;
  std::string_view producer_name, producer_version;
  int64_t model_version = 0;
  std::optional<Bytes> graph;
  std::vector<OpsetId> opset_import;
  std::vector<Entry> metadata;
  std::vector<Bytes> functions;
};

struct GraphProto {
  std::string_view name;
  std::vector<Bytes> nodes, initializers, sparse_initializers, inputs, outputs, value_infos;
};

struct NodeProto {
  std::string_view name, op_type, domain, overload;
  std::vector<std::string_view> inputs, outputs;
  std::vector<Bytes> attributes;
};

struct FunctionProto {
  std::string_view name, domain, overload;
  std::vector<std::string_view> inputs, outputs, attributes;
  std::vector<Bytes> nodes, attribute_defaults;
  std::vector<OpsetId> opset_import;
};

enum class AttributeType : int32_t {
  kUndefined,
  kFloat,
  kInt,
  kString,
  kTensor,
  kGraph,
  kFloats,
  kInts,
  kStrings,
  kTensors,
  kGraphs,
  kSparseTensor,
  kSparseTensors,
  kTypeProto,
  kTypeProtos
};

struct AttributeProto {
  std::string_view name, ref_attr_name;
  AttributeType type = AttributeType::kUndefined;  // where the file gives none: by the field that is set
  float f = 0;
  int64_t i = 0;
  std::string_view s;
  std::optional<Bytes> tensor, sparse_tensor, graph;
  std::vector<float> floats;
  std::vector<int64_t> ints;
  std::vector<std::string_view> strings;
};

struct TensorProto {
  Bytes message;  // for a second look at the typed data
  std::string_view name;
  int32_t data_type = 0;
  std::vector<int64_t> dims;  // at most Shape::kMaxRank + 1 are kept: more is too many anyway
  std::optional<Bytes> raw_data;
  uint32_t typed_fields = 0;  // bit n: data field n is present with at least one byte of elements
  bool external = false;
  bool segmented = false;
  std::vector<Entry> external_data;
};

struct SparseTensorProto {
  std::optional<Bytes> values, indices;
  std::vector<int64_t> dims;  // at most Shape::kMaxRank + 1 are kept
};

/// Field numbers of TensorProto's typed data.
enum TypedField : uint32_t {
  kFloatData = 4,
  kInt32Data = 5,
  kStringData = 6,
  kInt64Data = 7,
  kDoubleData = 10,
  kUint64Data = 11
};

struct ValueInfoProto {
  std::string_view name;
  bool is_tensor = true;                    // false: a sequence, map, optional or sparse tensor
  bool sequence = false, optional = false;  // of tensors, which the rest tells of
  int32_t elem_type = 0;                    // 0: not given
  bool has_shape = false;
  std::vector<int64_t> dims;  // Shape::kFree where free; at most Shape::kMaxRank + 1 are kept
};

ModelProto parse_model(Bytes message);
GraphProto parse_graph(Bytes message);
NodeProto parse_node(Bytes message);
FunctionProto parse_function(Bytes message);
AttributeProto parse_attribute(Bytes message);
TensorProto parse_tensor(Bytes message);
SparseTensorProto parse_sparse_tensor(Bytes message);
ValueInfoProto parse_value_info(Bytes message);

}  // namespace inferkit::onnx
