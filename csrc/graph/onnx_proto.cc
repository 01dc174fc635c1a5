#include "graph/onnx_proto.h"

#include "base/text.h"

namespace inferkit::onnx {
namespace {

/// Protobuf merges a message field that comes twice; a model file has no reason to.
void set_once(std::optional<Bytes>& field, const WireReader& r, std::string_view what) {
  if (field) r.fail(cat("more than one ", what));
  field = r.as_bytes();
}

std::string_view normalised(std::string_view domain) { return domain == "ai.onnx" ? std::string_view() : domain; }

/// Names travel into Python strings and messages, so they must be text.
std::string_view text(const WireReader& r) {
  const std::string_view s = r.as_text();
  if (!is_utf8(s)) r.fail(cat("a name that is not valid UTF-8: ", quote(s)));
  return s;
}

OpsetId parse_opset(Bytes message) {
  OpsetId out;
  WireReader r(message, "OperatorSetIdProto");
  while (r.next()) {
    if (r.number() == 1) out.domain = normalised(text(r));
    if (r.number() == 2) out.version = r.as_int64();
  }
  return out;
}

Entry parse_entry(Bytes message) {
  Entry out;
  WireReader r(message, "StringStringEntryProto");
  while (r.next()) {
    if (r.number() == 1) out.key = text(r);
    if (r.number() == 2) out.value = text(r);
  }
  return out;
}

void push_dim(std::vector<int64_t>& dims, int64_t dim) {
  if (dims.size() <= Shape::kMaxRank) dims.push_back(dim);
}

int64_t parse_dimension(Bytes message) {
  int64_t dim = Shape::kFree;
  WireReader r(message, "TensorShapeProto.Dimension");
  while (r.next()) {
    if (r.number() == 1) {
      dim = r.as_int64();
      // -1 is how some exporters (PaddlePaddle's) write a free dimension.
      if (dim < Shape::kFree) r.fail(cat("the negative size ", dim));
    }
    if (r.number() == 2) dim = Shape::kFree;
  }
  return dim;
}

void parse_tensor_type(Bytes message, ValueInfoProto& out) {
  std::optional<Bytes> shape;
  WireReader r(message, "TypeProto.Tensor");
  while (r.next()) {
    if (r.number() == 1) out.elem_type = r.as_int32();
    if (r.number() == 2) set_once(shape, r, "shape");
  }
  if (!shape) return;
  out.has_shape = true;
  WireReader dims(*shape, "TensorShapeProto");
  while (dims.next())
    if (dims.number() == 1) push_dim(out.dims, parse_dimension(dims.as_bytes()));
}

}  // namespace

ModelProto parse_model(Bytes message) {
  ModelProto out;
  WireReader r(message, "ModelProto");
  while (r.next()) {
    switch (r.number()) {
      case 1:
        out.ir_version = r.as_int64();
        break;
      case 2:
        out.producer_name = text(r);
        break;
      case 3:
        out.producer_version = text(r);
        break;
      case 5:
        out.model_version = r.as_int64();
        break;
      case 7:
        set_once(out.graph, r, "graph");
        break;
      case 8:
        out.opset_import.push_back(parse_opset(r.as_bytes()));
        break;
      case 14:
        out.metadata.push_back(parse_entry(r.as_bytes()));
        break;
      case 25:
        out.functions.push_back(r.as_bytes());
        break;
      default:
        break;
    }
  }
  return out;
}

GraphProto parse_graph(Bytes message) {
  GraphProto out;
  WireReader r(message, "GraphProto");
  while (r.next()) {
    switch (r.number()) {
      case 1:
        out.nodes.push_back(r.as_bytes());
        break;
      case 2:
        out.name = text(r);
        break;
      case 5:
        out.initializers.push_back(r.as_bytes());
        break;
      case 11:
        out.inputs.push_back(r.as_bytes());
        break;
      case 12:
        out.outputs.push_back(r.as_bytes());
        break;
      case 13:
        out.value_infos.push_back(r.as_bytes());
        break;
      case 15:
        out.sparse_initializers.push_back(r.as_bytes());
        break;
      default:
        break;
    }
  }
  return out;
}

NodeProto parse_node(Bytes message) {
  NodeProto out;
  WireReader r(message, "NodeProto");
  while (r.next()) {
    switch (r.number()) {
      case 1:
        out.inputs.push_back(text(r));
        break;
      case 2:
        out.outputs.push_back(text(r));
        break;
      case 3:
        out.name = text(r);
        break;
      case 4:
        out.op_type = text(r);
        break;
      case 5:
        out.attributes.push_back(r.as_bytes());
        break;
      case 7:
        out.domain = normalised(text(r));
        break;
      case 8:
        out.overload = text(r);
        break;
      default:
        break;
    }
  }
  return out;
}

FunctionProto parse_function(Bytes message) {
  FunctionProto out;
  WireReader r(message, "FunctionProto");
  while (r.next()) {
    switch (r.number()) {
      case 1:
        out.name = text(r);
        break;
      case 4:
        out.inputs.push_back(text(r));
        break;
      case 5:
        out.outputs.push_back(text(r));
        break;
      case 6:
        out.attributes.push_back(text(r));
        break;
      case 7:
        out.nodes.push_back(r.as_bytes());
        break;
      case 9:
        out.opset_import.push_back(parse_opset(r.as_bytes()));
        break;
      case 10:
        out.domain = normalised(text(r));
        break;
      case 11:
        out.attribute_defaults.push_back(r.as_bytes());
        break;
      case 13:
        out.overload = text(r);
        break;
      default:
        break;
    }
  }
  return out;
}

AttributeProto parse_attribute(Bytes message) {
  AttributeProto out;
  AttributeType seen = AttributeType::kUndefined;
  int32_t type = 0;
  WireReader r(message, "AttributeProto");
  while (r.next()) {
    switch (r.number()) {
      case 1:
        out.name = text(r);
        break;
      case 2:
        out.f = r.as_float();
        seen = AttributeType::kFloat;
        break;
      case 3:
        out.i = r.as_int64();
        seen = AttributeType::kInt;
        break;
      case 4:
        out.s = r.as_text();
        seen = AttributeType::kString;
        break;
      case 5:
        set_once(out.tensor, r, "tensor");
        seen = AttributeType::kTensor;
        break;
      case 6:
        set_once(out.graph, r, "graph");
        seen = AttributeType::kGraph;
        break;
      case 7:
        r.for_each_fixed<uint32_t>([&](uint32_t v) { out.floats.push_back(std::bit_cast<float>(v)); });
        seen = AttributeType::kFloats;
        break;
      case 8:
        r.for_each_varint([&](uint64_t v) { out.ints.push_back(static_cast<int64_t>(v)); });
        seen = AttributeType::kInts;
        break;
      case 9:
        out.strings.push_back(r.as_text());
        seen = AttributeType::kStrings;
        break;
      case 10:
        seen = AttributeType::kTensors;
        break;
      case 11:
        seen = AttributeType::kGraphs;
        break;
      case 14:
        seen = AttributeType::kTypeProto;
        break;
      case 15:
        seen = AttributeType::kTypeProtos;
        break;
      case 20:
        type = r.as_int32();
        break;
      case 21:
        out.ref_attr_name = text(r);
        break;
      case 22:
        out.sparse_tensor = r.as_bytes();
        seen = AttributeType::kSparseTensor;
        break;
      case 23:
        seen = AttributeType::kSparseTensors;
        break;
      default:
        break;
    }
  }
  if (type < 0 || type > static_cast<int32_t>(AttributeType::kTypeProtos))
    r.fail(cat("the unknown attribute type ", type, " for ", quote(out.name)));
  out.type = type == 0 ? seen : static_cast<AttributeType>(type);
  return out;
}

SparseTensorProto parse_sparse_tensor(Bytes message) {
  SparseTensorProto out;
  WireReader r(message, "SparseTensorProto");
  while (r.next()) {
    if (r.number() == 1) set_once(out.values, r, "values");
    if (r.number() == 2) set_once(out.indices, r, "indices");
    if (r.number() == 3) r.for_each_varint([&](uint64_t v) { push_dim(out.dims, static_cast<int64_t>(v)); });
  }
  return out;
}

TensorProto parse_tensor(Bytes message) {
  TensorProto out;
  out.message = message;
  WireReader r(message, "TensorProto");
  while (r.next()) {
    switch (r.number()) {
      case 1:
        r.for_each_varint([&](uint64_t v) { push_dim(out.dims, static_cast<int64_t>(v)); });
        break;
      case 2:
        out.data_type = r.as_int32();
        break;
      case 3:
        out.segmented = true;
        break;
      case 8:
        out.name = text(r);
        break;
      case 9:
        out.raw_data = r.as_bytes();
        break;
      case 13:
        out.external_data.push_back(parse_entry(r.as_bytes()));
        break;
      case 14:
        out.external = r.as_int32() == 1;
        break;
      case kFloatData:
      case kInt32Data:
      case kInt64Data:
      case kDoubleData:
      case kUint64Data:
        if (r.type() != WireType::kBytes || !r.as_bytes().empty()) out.typed_fields |= 1u << r.number();
        break;
      case kStringData:
        out.typed_fields |= 1u << kStringData;
        break;
      default:
        break;
    }
  }
  return out;
}

namespace {

/// A tensor, or sequences and optionals of them, each at most once: then the type that is within.
void parse_type(Bytes message, ValueInfoProto& out) {
  std::optional<Bytes> tensor, sequence, optional;
  bool other = false;
  WireReader t(message, "TypeProto");
  while (t.next()) {
    switch (t.number()) {
      case 1:
        set_once(tensor, t, "tensor type");
        break;
      case 4:
        set_once(sequence, t, "sequence type");
        break;
      case 9:
        set_once(optional, t, "optional type");
        break;
      case 5:
      case 7:
      case 8:
        other = true;
        break;
      default:
        break;
    }
  }
  const auto within = [&](Bytes list) {
    std::optional<Bytes> type;
    WireReader r(list, "TypeProto.Sequence");
    while (r.next()) {
      if (r.number() == 1) set_once(type, r, "type");
    }
    if (type) parse_type(*type, out);
  };
  out.is_tensor = out.is_tensor && !sequence && !optional && !other;
  if (other || (sequence && out.sequence) || (optional && (out.optional || out.sequence)) || (sequence && optional)) {
    out.sequence = out.optional = false;
    out.elem_type = 0;
  } else if (sequence) {
    out.sequence = true;
    within(*sequence);
  } else if (optional) {
    out.optional = true;
    within(*optional);
  } else if (tensor) {
    parse_tensor_type(*tensor, out);
  }
}

}  // namespace

ValueInfoProto parse_value_info(Bytes message) {
  ValueInfoProto out;
  std::optional<Bytes> type;
  WireReader r(message, "ValueInfoProto");
  while (r.next()) {
    if (r.number() == 1) out.name = text(r);
    if (r.number() == 2) set_once(type, r, "type");
  }
  if (type) parse_type(*type, out);
  return out;
}

}  // namespace inferkit::onnx
