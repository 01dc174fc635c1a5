#include "memory/safetensors.h"

#include <algorithm>
#include <array>
#include <climits>
#include <optional>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/counted.h"
#include "base/error.h"
#include "base/text.h"
#include "memory/json.h"

namespace inferkit {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kLengthBytes = 8;

constexpr std::array<std::pair<std::string_view, DType>, 16> kDTypes = {{{"F64", DType::kF64},
                                                                         {"F32", DType::kF32},
                                                                         {"F16", DType::kF16},
                                                                         {"BF16", DType::kBF16},
                                                                         {"I64", DType::kI64},
                                                                         {"I32", DType::kI32},
                                                                         {"I16", DType::kI16},
                                                                         {"I8", DType::kI8},
                                                                         {"U64", DType::kU64},
                                                                         {"U32", DType::kU32},
                                                                         {"U16", DType::kU16},
                                                                         {"U8", DType::kU8},
                                                                         {"BOOL", DType::kBool},
                                                                         {"F8_E4M3", DType::kF8E4M3FN},
                                                                         {"F8_E5M2", DType::kF8E5M2},
                                                                         {"F8_E8M0", DType::kF8E8M0}}};

// Begin and end count from the first byte after the header, as the file writes them.
struct Claim {
  SafetensorsEntry entry;
  uint64_t begin = 0;
  uint64_t end = 0;
};

class HeaderReader {
 public:
  HeaderReader(std::string_view header, const std::string& where) : json_(header, where), where_(where) {}

  void read() {
    bool has_metadata = false;
    json_.object([&](std::string key) {
      if (key != "__metadata__") {
        claims_.push_back(read_claim(std::move(key)));
        return;
      }
      if (std::exchange(has_metadata, true)) json_.fail("__metadata__ comes twice");
      json_.object([&](std::string name) {
        std::string value = json_.string();
        const auto [at, added] = metadata_.emplace(std::move(name), std::move(value));
        if (!added) json_.fail(cat("the metadata key ", quote(at->first), " comes twice"));
      });
    });
    json_.end();
  }

  [[noreturn]] void fail(const Claim& claim, const std::string& what) const {
    throw Error(ErrorCode::kModel, cat(where_, ": tensor ", quote(claim.entry.name), " ", what));
  }

  std::vector<Claim>& claims() { return claims_; }
  std::map<std::string, std::string>& metadata() { return metadata_; }

 private:
  Claim read_claim(std::string name) {
    Claim claim;
    claim.entry.name = std::move(name);
    bool dtype = false, shape = false, offsets = false;
    json_.object([&](const std::string& key) {
      const auto once = [&](bool* seen) {
        if (std::exchange(*seen, true)) fail(claim, cat("gives '", key, "' twice"));
      };
      if (key == "dtype") {
        once(&dtype);
        read_dtype(&claim);
      } else if (key == "shape") {
        once(&shape);
        read_shape(&claim);
      } else if (key == "data_offsets") {
        once(&offsets);
        read_offsets(&claim);
      } else {
        json_.skip();  // the reference reader lets others be, too
      }
    });
    if (!dtype) fail(claim, "has no 'dtype'");
    if (!shape) fail(claim, "has no 'shape'");
    if (!offsets) fail(claim, "has no 'data_offsets'");
    return claim;
  }

  void read_dtype(Claim* claim) {
    const std::string name = json_.string();
    const auto* row = std::find_if(kDTypes.begin(), kDTypes.end(), [&](const auto& r) { return r.first == name; });
    if (row == kDTypes.end()) {
      fail(*claim,
           cat("has dtype ", quote(name),
               "; expected one of F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL F8_E4M3 F8_E5M2 F8_E8M0. ",
               "Convert the tensor, or leave it out of the file"));
    }
    claim->entry.dtype = row->second;
  }

  void read_shape(Claim* claim) {
    json_.array([&] {
      const uint64_t dim = json_.unsigned_integer();
      if (dim > INT64_MAX) fail(*claim, cat("has a dimension of ", dim));
      if (claim->entry.shape.rank() == Shape::kMaxRank) {
        fail(*claim, cat("has more than ", Shape::kMaxRank, " dimensions"));
      }
      claim->entry.shape.push_back(static_cast<int64_t>(dim));
    });
  }

  void read_offsets(Claim* claim) {
    size_t count = 0;
    json_.array([&] {
      const uint64_t value = json_.unsigned_integer();
      if (count < 2) (count == 0 ? claim->begin : claim->end) = value;
      ++count;
    });
    if (count != 2) fail(*claim, cat("has ", count, " data_offsets, expected two"));
    if (claim->begin > claim->end) fail(*claim, cat("ends at ", claim->end, ", before its begin ", claim->begin));
  }

  JsonReader json_;
  const std::string& where_;
  std::vector<Claim> claims_;
  std::map<std::string, std::string> metadata_;
};

std::optional<uint64_t> byte_count(const SafetensorsEntry& entry) {
  const auto elements = entry.shape.checked_elements();
  uint64_t bytes = 0;
  if (!elements || __builtin_mul_overflow(static_cast<uint64_t>(*elements), dtype_size(entry.dtype), &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

// Side by side from 0 to data_bytes, each as long as its shape and dtype say.
void check_layout(const HeaderReader& reader, const std::vector<Claim>& sorted, uint64_t data_bytes,
                  const std::string& where) {
  uint64_t at = 0;
  for (const Claim& claim : sorted) {
    if (claim.begin != at) {
      reader.fail(claim, cat("begins at byte ", claim.begin, " of the data, expected ", at,
                             claim.begin < at ? ": it overlaps the one before" : ": there is a hole before it"));
    }
    const auto bytes = byte_count(claim.entry);
    if (!bytes) reader.fail(claim, cat("has shape ", claim.entry.shape.str(), ", more elements than memory has"));
    if (*bytes != claim.end - claim.begin) {
      reader.fail(claim, cat("takes ", counted(claim.end - claim.begin, "byte"), ", expected ", *bytes, " for ",
                             dtype_name(claim.entry.dtype), " of shape ", claim.entry.shape.str()));
    }
    at = claim.end;
  }
  if (at != data_bytes) {
    throw Error(ErrorCode::kModel,
                cat(where, ": the header describes ", counted(at, "byte"), " of data, the file holds ", data_bytes,
                    at > data_bytes ? ": it is cut short" : ": it is too long"));
  }
}

// By sorting: a hash table would be as slow as a hostile file likes.
void check_unique(const HeaderReader& reader, const std::vector<Claim>& claims) {
  std::vector<const Claim*> by_name;
  by_name.reserve(claims.size());
  for (const Claim& claim : claims) by_name.push_back(&claim);
  std::sort(by_name.begin(), by_name.end(), [](auto* a, auto* b) { return a->entry.name < b->entry.name; });
  const auto twice = std::adjacent_find(by_name.begin(), by_name.end(),
                                        [](auto* a, auto* b) { return a->entry.name == b->entry.name; });
  if (twice != by_name.end()) reader.fail(**twice, "comes twice");
}

}  // namespace

SafetensorsIndex parse_safetensors(std::span<const std::byte> file, const std::string& where) {
  const auto fail = [&](const std::string& what) -> Error {
    return Error(ErrorCode::kModel, cat(where, ": ", what, "; is this a whole safetensors file?"));
  };
  if (file.size() < kLengthBytes)
    throw fail(cat("the file has ", counted(file.size(), "byte"), ", expected at least 8"));
  uint64_t header_bytes = 0;
  for (size_t i = kLengthBytes; i-- > 0;) header_bytes = header_bytes << 8 | std::to_integer<uint64_t>(file[i]);
  if (header_bytes > kMaxHeader) {
    throw fail(cat("the header claims ", counted(header_bytes, "byte"), ", expected at most ", kMaxHeader));
  }
  const size_t data_begin = kLengthBytes + static_cast<size_t>(header_bytes);
  if (data_begin > file.size()) {
    throw fail(
        cat("the header claims ", counted(header_bytes, "byte"), ", the file holds ", file.size() - kLengthBytes));
  }
  // A copy: what is checked and then used must not change in between, whoever writes into the file.
  const std::string header(reinterpret_cast<const char*>(file.data()) + kLengthBytes,
                           static_cast<size_t>(header_bytes));
  if (header.empty() || header.front() != '{') throw fail("the header does not begin with '{'");

  HeaderReader reader(header, where);
  reader.read();
  std::vector<Claim>& claims = reader.claims();
  check_unique(reader, claims);
  std::sort(claims.begin(), claims.end(), [](const Claim& a, const Claim& b) {
    return std::tie(a.begin, a.end, a.entry.name) < std::tie(b.begin, b.end, b.entry.name);
  });
  check_layout(reader, claims, file.size() - data_begin, where);

  SafetensorsIndex index;
  index.metadata = std::move(reader.metadata());
  index.tensors.reserve(claims.size());
  for (Claim& claim : claims) {
    claim.entry.offset = data_begin + static_cast<size_t>(claim.begin);
    index.tensors.push_back(std::move(claim.entry));
  }
  return index;
}

}  // namespace inferkit
