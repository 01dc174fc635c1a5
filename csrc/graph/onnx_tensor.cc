#include "graph/onnx_tensor.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <limits>
#include <vector>

#include "base/counted.h"
#include "base/small_types.h"
#include "base/text.h"
#include "graph/foreign_file.h"
#include "graph/text_tensor.h"
#include "memory/contained_file.h"
#include "platform/run_control.h"

namespace inferkit::onnx {
namespace {

constexpr std::array<const char*, 27> kNames = {
    "UNDEFINED", "FLOAT",      "UINT8",      "INT8",         "UINT16",         "INT16",      "INT32",
    "INT64",     "STRING",     "BOOL",       "FLOAT16",      "DOUBLE",         "UINT32",     "UINT64",
    "COMPLEX64", "COMPLEX128", "BFLOAT16",   "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ",
    "UINT4",     "INT4",       "FLOAT4E2M1", "FLOAT8E8M0",   "UINT2",          "INT2"};

/// Smaller tensors cost more to watch over than to copy.
constexpr size_t kLeastMapped = size_t{16} << 10;

/// Where a second look at the file finds more than the first did.
constexpr std::string_view kWritten = "is being written to while it is read";

/// The bytes that a file has of it.
size_t checked_bytes(DType dtype, const Shape& shape, const std::string& what) {
  const auto count = shape.checked_elements();
  size_t bytes = 0;
  if (!count || __builtin_mul_overflow(static_cast<size_t>(*count), dtype_size(dtype), &bytes))
    fail(what, cat("has the impossible shape ", shape.str()));
  if (dtype_bits(dtype) >= 8 || bytes == 0) return bytes;
  const size_t per_byte = 8 / dtype_bits(dtype);
  return bytes / per_byte + (bytes % per_byte != 0);
}

/// Elements that share bytes, the first in the lowest bits, each in a byte of its own.
void unpack(DType dtype, Bytes packed, int64_t count, void* out) {
  const size_t bits = dtype_bits(dtype), per_byte = 8 / bits;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const auto byte = std::to_integer<uint8_t>(packed[i / per_byte]);
    static_cast<uint8_t*>(out)[i] = to_small_integer(bits, byte >> (i % per_byte * bits));
  }
}

/// Calls visit(field) for every occurrence of `number` in the message.
template <class Visit>
void for_each_occurrence(Bytes message, uint32_t number, Visit&& visit) {
  WireReader r(message, "TensorProto");
  while (r.next())
    if (r.number() == number) visit(r);
}

/// Reads the elements of one typed field into a fresh tensor of T. `each(reader, visit)` walks an occurrence;
/// `convert` turns an element into T, or nullopt where it does not fit.
template <class T, class Each, class Convert>
Tensor load_typed(const TensorProto& proto, uint32_t field, const Shape& shape, const std::string& what, Each&& each,
                  Convert&& convert) {
  size_t present = 0;
  for_each_occurrence(proto.message, field, [&](const WireReader& r) { each(r, [&](auto) { ++present; }); });
  if (present != static_cast<size_t>(shape.elements()))
    fail(what, cat("holds ", counted(present, "element"), "; its shape ", shape.str(), " needs ", shape.elements()));
  void* data = nullptr;
  Tensor tensor = make_tensor(kDTypeOf<T>, shape, &data);
  T* out = static_cast<T*>(data);
  for_each_occurrence(proto.message, field, [&](const WireReader& r) {
    each(r, [&](auto element) {
      if (present-- == 0) fail(what, kWritten);
      const std::optional<T> value = convert(element);
      if (!value) fail(what, cat("holds the element ", element, ", which ", dtype_name(kDTypeOf<T>), " cannot"));
      *out++ = *value;
    });
  });
  return tensor;
}

constexpr auto kEachVarint = [](const WireReader& r, auto&& visit) { r.for_each_varint(visit); };
constexpr auto kEachInt32 = [](const WireReader& r, auto&& visit) {
  r.for_each_varint([&](uint64_t v) { visit(static_cast<int32_t>(static_cast<uint32_t>(v))); });
};
constexpr auto kEachInt64 = [](const WireReader& r, auto&& visit) {
  r.for_each_varint([&](uint64_t v) { visit(static_cast<int64_t>(v)); });
};
constexpr auto kEachFixed32 = [](const WireReader& r, auto&& visit) { r.for_each_fixed<uint32_t>(visit); };
constexpr auto kEachFixed64 = [](const WireReader& r, auto&& visit) { r.for_each_fixed<uint64_t>(visit); };

template <class T>
std::optional<T> narrow(auto element) {
  if (element < std::numeric_limits<T>::min() || element > std::numeric_limits<T>::max()) return std::nullopt;
  return static_cast<T>(element);
}

template <class T>
std::optional<T> sixteen_bits(int32_t element) {
  if (element < 0 || element > 0xffff) return std::nullopt;
  return T{static_cast<uint16_t>(element)};
}

/// One byte of elements in each number.
Tensor load_bytes(const TensorProto& proto, DType dtype, const Shape& shape, const std::string& what) {
  std::vector<std::byte> bytes;
  const size_t expected = checked_bytes(dtype, shape, what);
  for_each_occurrence(proto.message, kInt32Data, [&](const WireReader& r) {
    kEachInt32(r, [&](int32_t element) {
      if (element < -128 || element > 255)
        fail(what, cat("holds the number ", element, ", which is no byte of ", dtype_name(dtype)));
      bytes.push_back(static_cast<std::byte>(element));
    });
  });
  if (bytes.size() != expected)
    fail(what, cat("holds ", counted(bytes.size(), "byte"), "; its shape ", shape.str(), " of ", dtype_name(dtype),
                   " needs ", expected));
  void* data = nullptr;
  Tensor tensor = make_tensor(dtype, shape, &data);
  unpack(dtype, bytes, shape.elements(), data);
  return tensor;
}

Tensor load_strings(const TensorProto& proto, const Shape& shape, const std::string& what) {
  size_t present = 0;
  for_each_occurrence(proto.message, kStringData, [&](const WireReader&) { ++present; });
  if (present != static_cast<size_t>(shape.elements()))
    fail(what, cat("holds ", counted(present, "string"), "; its shape ", shape.str(), " needs ", shape.elements()));
  std::vector<std::string_view> values;
  for_each_occurrence(proto.message, kStringData, [&](const WireReader& r) {
    if (present-- == 0) fail(what, kWritten);
    values.push_back(r.as_text());
  });
  Tensor tensor = text_tensor(shape, values);
  for (const std::string_view value : std::span(tensor.as<std::string_view>(), values.size()))  // of our own copy
    if (!is_utf8(value)) fail(what, cat("holds the string ", quote(value), ", which is not UTF-8"));
  return tensor;
}

uint32_t typed_field_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return kFloatData;
    case DType::kF64:
      return kDoubleData;
    case DType::kI64:
      return kInt64Data;
    case DType::kU32:
    case DType::kU64:
      return kUint64Data;
    case DType::kString:
      return kStringData;
    default:
      return kInt32Data;
  }
}

Tensor load_typed(const TensorProto& proto, DType dtype, const Shape& shape, const std::string& what) {
  const uint32_t field = typed_field_of(dtype);
  if (proto.typed_fields & ~(1u << field)) fail(what, cat("is ", dtype_name(dtype), " but has data of another type"));
  const auto ints = [&]<class T>(T) {
    return load_typed<T>(proto, field, shape, what, kEachInt32, narrow<T, int32_t>);
  };
  switch (dtype) {
    case DType::kF32:
      return load_typed<float>(proto, field, shape, what, kEachFixed32,
                               [](uint32_t v) { return std::optional(std::bit_cast<float>(v)); });
    case DType::kF64:
      return load_typed<double>(proto, field, shape, what, kEachFixed64,
                                [](uint64_t v) { return std::optional(std::bit_cast<double>(v)); });
    case DType::kI64:
      return load_typed<int64_t>(proto, field, shape, what, kEachInt64, narrow<int64_t, int64_t>);
    case DType::kU32:
      return load_typed<uint32_t>(proto, field, shape, what, kEachVarint, narrow<uint32_t, uint64_t>);
    case DType::kU64:
      return load_typed<uint64_t>(proto, field, shape, what, kEachVarint, narrow<uint64_t, uint64_t>);
    case DType::kF16:
      return load_typed<Half>(proto, field, shape, what, kEachInt32, sixteen_bits<Half>);
    case DType::kBF16:
      return load_typed<BFloat16>(proto, field, shape, what, kEachInt32, sixteen_bits<BFloat16>);
    case DType::kBool:
      return load_typed<bool>(proto, field, shape, what, kEachInt32, [](int32_t v) { return std::optional(v != 0); });
    case DType::kI8:
      return ints(int8_t{});
    case DType::kI16:
      return ints(int16_t{});
    case DType::kI32:
      return ints(int32_t{});
    case DType::kU8:
      return ints(uint8_t{});
    case DType::kU16:
      return ints(uint16_t{});
    case DType::kString:
      return load_strings(proto, shape, what);
    default:
      return load_bytes(proto, dtype, shape, what);
  }
}

size_t parse_size(std::string_view text, std::string_view key, const std::string& what) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    fail(what, cat("has an external ", key, " that is not a number of bytes: ", quote(text)));
  return value;
}

}  // namespace

std::optional<DType> dtype_of(int32_t code) {
  // By TensorProto.DataType, as kNames.
  using enum DType;
  constexpr std::optional<DType> kNone;
  static constexpr std::optional<DType> kCodes[] = {
      kNone,       kF32,    kU8,         kI8,  kU16, kI16,    kI32,    kI64,  kString,
      kBool,       kF16,    kF64,        kU32, kU64, kNone,   kNone,   kBF16, kF8E4M3FN,
      kF8E4M3FNUZ, kF8E5M2, kF8E5M2FNUZ, kU4,  kI4,  kF4E2M1, kF8E8M0, kU2,   kI2};
  static_assert(std::size(kCodes) == kNames.size());
  return code >= 0 && static_cast<size_t>(code) < std::size(kCodes) ? kCodes[code] : kNone;
}

std::string dtype_text(int32_t code) {
  if (code >= 0 && static_cast<size_t>(code) < kNames.size()) return kNames[static_cast<size_t>(code)];
  return cat("data type ", code);
}

Tensor TensorLoader::load(Bytes message, const std::string& what) {
  // An empty message has no address of its own; it is refused below (no data type).
  if (const auto it = loaded_.find(message.data()); it != loaded_.end()) return it->second;
  const TensorProto proto = parse_tensor(message);
  const auto dtype = dtype_of(proto.data_type);
  if (proto.data_type == 0) fail(what, "has no data type");
  if (!dtype)
    throw Error(ErrorCode::kUnsupportedOp,
                cat(what, " has elements of ", dtype_text(proto.data_type), ", which inferkit does not support"));
  if (proto.dims.size() > Shape::kMaxRank)
    throw Error(ErrorCode::kUnsupportedOp, cat(what, " has more than ", Shape::kMaxRank, " dimensions"));
  if (proto.segmented) throw Error(ErrorCode::kUnsupportedOp, cat(what, " is stored in segments"));
  const Shape shape(proto.dims);
  for (const int64_t d : shape)
    if (d < 0) fail(what, cat("has the negative dimension ", d));
  checked_bytes(*dtype, shape, what);

  Tensor tensor;
  if (proto.external) {
    if (proto.raw_data || proto.typed_fields) fail(what, "has both external data and data in the file");
    tensor = load_external(proto, *dtype, shape, what);
  } else if (proto.raw_data) {
    if (proto.typed_fields) fail(what, "has both raw and typed data");
    tensor = load_raw(*dtype, shape, *proto.raw_data, source_, what);
  } else {
    tensor = load_typed(proto, *dtype, shape, what);
  }
  loaded_.emplace(message.data(), tensor);
  return tensor;
}

/// Whole numbers may be sizes and indices, which are checked once and must stay what they were; weights that are
/// quantized are bytes.
bool TensorLoader::worth_mapping(DType dtype, size_t bytes) const {
  if (placement_ == Placement::kCopied || bytes < kLeastMapped) return false;
  switch (dtype) {
    case DType::kBool:
    case DType::kI16:
    case DType::kI32:
    case DType::kI64:
    case DType::kU16:
    case DType::kU32:
    case DType::kU64:
      return false;
    default:
      return true;
  }
}

Tensor TensorLoader::load_raw(DType dtype, const Shape& shape, Bytes data, const Source& source,
                              const std::string& what) {
  if (dtype == DType::kString) fail(what, "holds strings as raw data");
  const size_t bytes = checked_bytes(dtype, shape, what);
  if (data.size() != bytes)
    fail(what, cat("has ", counted(data.size(), "byte"), " of data; its shape ", shape.str(), " of ", dtype_name(dtype),
                   " needs ", bytes));
  if (dtype_bits(dtype) < 8) {
    void* unpacked = nullptr;
    Tensor tensor = make_tensor(dtype, shape, &unpacked);
    unpack(dtype, data, shape.elements(), unpacked);
    return tensor;
  }
  // What decides indices, shapes and branches is copied: it must stay as it is now, whoever writes to the file.
  const bool decides = dtype == DType::kBool || dtype == DType::kI32 || dtype == DType::kI64;
  const bool aligned = reinterpret_cast<uintptr_t>(data.data()) % dtype_size(dtype) == 0;
  if (source.owner && !decides && bytes > 0 && (!source.file || worth_mapping(dtype, bytes))) {
    const auto* file = opened_.find(data.data());
    if (file) viewed_.add(*file);
    if (aligned) return {dtype, shape, data.data(), source.owner};
    if (file) {
      misaligned_bytes_ += bytes;
      auto odd = std::make_shared<const OddBytes>(*file, data);
      const TensorData at(*odd);
      return {dtype, shape, at, std::move(odd)};
    }
  }
  void* out = nullptr;
  Tensor tensor;
  if (source.file && bytes >= kLeastMapped) {
    // The file has that many bytes, so that room for more than all of them is never reserved for it.
    const auto room = copies_.take(bytes, source.file->bytes().size());
    out = room.get();
    tensor = {dtype, shape, out, room};
  } else {
    tensor = make_tensor(dtype, shape, &out);
  }
  if (dtype == DType::kBool) {  // one that is neither 0 nor 1 must not reach code that reads it as one
    std::transform(data.begin(), data.end(), static_cast<std::byte*>(out),
                   [](std::byte b) { return b == std::byte{0} ? b : std::byte{1}; });
  } else {
    constexpr size_t kPart = size_t{64} << 20;  // tens of milliseconds
    for_parts(static_cast<int64_t>((bytes + kPart - 1) / kPart), [&](int64_t i) {
      const size_t first = static_cast<size_t>(i) * kPart, size = std::min(kPart, bytes - first);
      std::memcpy(static_cast<std::byte*>(out) + first, data.data() + first, size);
    });
    RunControl::check();
  }
  return tensor;
}

Tensor TensorLoader::load_external(const TensorProto& proto, DType dtype, const Shape& shape, const std::string& what) {
  if (dtype == DType::kString) fail(what, "holds strings as external data");
  std::string_view location;
  size_t offset = 0;
  std::optional<size_t> length;
  for (const Entry& e : proto.external_data) {
    if (e.key == "location") location = e.value;
    if (e.key == "offset") offset = parse_size(e.value, "offset", what);
    if (e.key == "length") length = parse_size(e.value, "length", what);
  }
  const size_t bytes = checked_bytes(dtype, shape, what);
  if (length && *length != bytes)
    fail(what, cat("has ", counted(*length, "byte"), " of external data; its shape ", shape.str(), " of ",
                   dtype_name(dtype), " needs ", bytes));
  // Many tensors may share one range, so copies are shared too; ranges that overlap could still multiply them. By the
  // file's name: the addresses of one that is not kept are soon another's.
  const std::tuple key(std::string(location), offset, bytes, dtype);
  if (const auto it = external_copies_.find(key); it != external_copies_.end() && it->second.shape == shape)
    return it->second;
  const auto file = open(location, what);
  const Bytes all = file->bytes();
  if (offset > all.size() || bytes > all.size() - offset)
    fail(what, cat("reads ", counted(bytes, "byte"), " at ", offset, " of its external data ", quote(location),
                   ", which has only ", all.size()));
  const Bytes data = all.subspan(offset, bytes);
  const bool kept = files_.find(location)->second != nullptr;
  Tensor tensor = load_raw(dtype, shape, data, kept ? Source{file, file.get()} : Source{}, what);
  if (!kept) {
    file->require_unchanged();  // nobody looks at it later
    opened_.remove(*file);
  }
  if (tensor.data.place() != data.data() || tensor.data.odd()) {
    copied_bytes_ += bytes;
    if (copied_bytes_ > 2 * external_bytes_)
      fail(what, "overlaps other unaligned external tensors; refusing to copy them all");
    external_copies_[key] = tensor;
  }
  return tensor;
}

std::shared_ptr<const MappedFile> TensorLoader::open(std::string_view location, const std::string& what) {
  if (folders_.empty())
    fail(what, "has external data, but the model was given as bytes without a folder; load it by its path");
  if (location.empty()) fail(what, "has external data without a location");
  const auto known = files_.find(location);
  if (known != files_.end() && known->second) return known->second;
  constexpr size_t kMaxFiles = 16'384;
  if (known == files_.end() && files_.size() == kMaxFiles)
    fail(what, cat("is in one more external file than the ", kMaxFiles, " allowed"));
  std::shared_ptr<const MappedFile> file;
  try {
    file = open_contained(folders_, std::string(location));
  } catch (const Error& e) {
    throw Error(ErrorCode::kModel, cat(what, ": ", e.what()));
  }
  // Each file that is kept holds a mapping and a descriptor, of which a process has a thousand or so.
  constexpr size_t kMaxKept = 64;
  if (known == files_.end()) {
    external_bytes_ += file->bytes().size();
    files_.emplace(location, opened_.size() < kMaxKept ? file : nullptr);
  }
  opened_.add(file);  // before it is read, which may find it cut short
  if (const std::string_view instead = stand_in(file->bytes()); !instead.empty())
    fail(what, cat("has its data in ", quote(location), ", which holds no weights but is ", instead));
  return file;
}

}  // namespace inferkit::onnx
