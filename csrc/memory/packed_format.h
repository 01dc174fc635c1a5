// The file of packed weights, as bytes: what stands before the weights. All numbers are little-endian.
//   "inferkit packed\n", version, bytes of this header, bytes of the file, the hash's key, this header's digest;
//   the tag (build, tier, precision), the model's files, the sections; then, at the next page, the sections' bytes.
#pragma once
#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "memory/keyed_hash.h"
#include "memory/mapped_file.h"

namespace inferkit {

/// Sections begin at such addresses.
inline constexpr size_t kPackedPage = 4096;

/// What a packed file is for.
struct PackedTag {
  std::string build;      // whose kernels read it
  std::string tier;       // of instruction sets
  std::string precision;  // in which the model computes
  auto operator<=>(const PackedTag&) const = default;
};

/// What a section was packed from: a part of one of the model's files, or bytes that are in memory only.
struct PackedSource {
  static constexpr uint32_t kInMemory = ~uint32_t{0};
  uint32_t file = kInMemory;  // of the model's, in their order
  uint64_t offset = 0;
  uint64_t bytes = 0;
  Digest digest;
  auto operator<=>(const PackedSource&) const = default;
};

/// What is packed, and how.
struct PackedName {
  std::vector<PackedSource> from;
  std::string kind;        // the arrangement, with its parameters
  uint64_t precision = 0;  // the type of its elements
  std::string tier;        // whose kernels read it; empty where all do
  auto operator<=>(const PackedName&) const = default;
};

struct PackedSection {
  PackedName name;
  uint64_t offset = 0;  // from where the sections begin
  uint64_t bytes = 0;
  Digest digest;
};

/// One of the model's files, as it was. All of it zero where its times tell nothing.
struct ModelFileState {
  uint64_t bytes = 0, device = 0, inode = 0;
  int64_t modified_s = 0, modified_ns = 0, touched_s = 0, touched_ns = 0;
  bool operator==(const ModelFileState&) const = default;
};
ModelFileState model_file_state(const FileState& state);

struct PackedHeader {
  KeyedHash::Key key{};
  PackedTag tag;
  std::vector<ModelFileState> files;
  std::vector<PackedSection> sections;  // in the order of their offsets

  /// Where the sections of a header of so many bytes begin.
  static uint64_t body_at(uint64_t header_bytes) {
    return (header_bytes + kPackedPage - 1) / kPackedPage * kPackedPage;
  }
};

/// What stands at the beginning of the file, up to the end of the header.
std::vector<std::byte> packed_header_bytes(const PackedHeader& header);

/// Of a whole file. Throws Error(kModel) that begins with `what` where it is no such file, is of another version, was
/// cut short or damaged; every section lies in the file, on a page of its own, behind those before it. `body` becomes
/// where they begin.
PackedHeader read_packed_header(std::span<const std::byte> file, const std::string& what, uint64_t& body);

}  // namespace inferkit
