#include "memory/packed_format.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "base/counted.h"
#include "base/error.h"
#include "base/text.h"

namespace inferkit {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[] = "inferkit packed\n";
constexpr size_t kMagicBytes = sizeof(kMagic) - 1;
constexpr uint64_t kVersion = 1;
constexpr uint64_t kMostHeader = uint64_t{64} << 20;

/// Before everything of variable size.
struct Fixed {
  char magic[kMagicBytes];
  uint64_t version;
  uint64_t header_bytes;
  uint64_t file_bytes;
  KeyedHash::Key key;
  Digest digest;  // of the header, with zeros here
};
static_assert(std::is_trivially_copyable_v<Fixed>);

class Writer {
 public:
  void number(uint64_t value) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  void text(const std::string& value) {
    number(value.size());
    const auto bytes = std::as_bytes(std::span(value));
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  void digest(const Digest& value) {
    number(value.first);
    number(value.second);
  }
  std::vector<std::byte> out;
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& what) : rest_(bytes), what_(what) {}

  uint64_t number() {
    uint64_t value;
    std::memcpy(&value, take(sizeof(value)).data(), sizeof(value));
    return value;
  }
  /// How many things follow, each of `least` bytes at least: no more than there is room for.
  size_t count(size_t least) {
    const uint64_t value = number();
    if (value > rest_.size() / least) damaged();
    return static_cast<size_t>(value);
  }
  std::string text() {
    const auto bytes = take(count(1));
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  Digest digest() {
    const uint64_t first = number();
    return {first, number()};
  }
  bool at_end() const { return rest_.empty(); }
  [[noreturn]] void damaged() const {
    throw Error(ErrorCode::kModel, cat(what_, " is damaged: its header contradicts itself"));
  }

 private:
  std::span<const std::byte> take(size_t bytes) {
    if (bytes > rest_.size()) damaged();
    const auto out = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return out;
  }
  std::span<const std::byte> rest_;
  const std::string& what_;
};

void write(Writer& w, const PackedSection& section) {
  w.number(section.name.from.size());
  for (const PackedSource& s : section.name.from) {
    w.number(s.file);
    w.number(s.offset);
    w.number(s.bytes);
    w.digest(s.digest);
  }
  w.text(section.name.kind);
  w.number(section.name.precision);
  w.text(section.name.tier);
  w.number(section.offset);
  w.number(section.bytes);
  w.digest(section.digest);
}

PackedSection read_section(Reader& r, size_t files) {
  constexpr size_t kSourceBytes = 5 * sizeof(uint64_t);
  PackedSection out;
  out.name.from.resize(r.count(kSourceBytes));
  for (PackedSource& s : out.name.from) {
    const uint64_t file = r.number();
    if (file >= files && file != PackedSource::kInMemory) r.damaged();
    s.file = static_cast<uint32_t>(file);
    s.offset = r.number();
    s.bytes = r.number();
    s.digest = r.digest();
  }
  out.name.kind = r.text();
  out.name.precision = r.number();
  out.name.tier = r.text();
  out.offset = r.number();
  out.bytes = r.number();
  out.digest = r.digest();
  return out;
}

Digest digest_of(std::vector<std::byte>& header, const KeyedHash::Key& key) {
  const Digest none;
  std::memcpy(header.data() + offsetof(Fixed, digest), &none, sizeof(none));
  return KeyedHash(key).of(header);
}

}  // namespace

ModelFileState model_file_state(const FileState& state) {
  return {static_cast<uint64_t>(state.size),
          state.device,
          state.inode,
          state.modified.tv_sec,
          state.modified.tv_nsec,
          state.touched.tv_sec,
          state.touched.tv_nsec};
}

std::vector<std::byte> packed_header_bytes(const PackedHeader& header) {
  Writer w;
  w.out.resize(sizeof(Fixed));
  for (const std::string* text : {&header.tag.build, &header.tag.tier, &header.tag.precision}) w.text(*text);
  w.number(header.files.size());
  for (const ModelFileState& f : header.files) {
    for (const uint64_t n : {f.bytes, f.device, f.inode}) w.number(n);
    for (const int64_t n : {f.modified_s, f.modified_ns, f.touched_s, f.touched_ns}) w.number(static_cast<uint64_t>(n));
  }
  w.number(header.sections.size());
  for (const PackedSection& section : header.sections) write(w, section);

  Fixed fixed{};
  std::memcpy(fixed.magic, kMagic, kMagicBytes);
  fixed.version = kVersion;
  fixed.header_bytes = w.out.size();
  fixed.file_bytes = PackedHeader::body_at(w.out.size());
  if (!header.sections.empty()) fixed.file_bytes += header.sections.back().offset + header.sections.back().bytes;
  fixed.key = header.key;
  std::memcpy(w.out.data(), &fixed, sizeof(fixed));
  fixed.digest = digest_of(w.out, header.key);
  std::memcpy(w.out.data(), &fixed, sizeof(fixed));
  return std::move(w.out);
}

PackedHeader read_packed_header(std::span<const std::byte> file, const std::string& what, uint64_t& body) {
  const auto fail = [&](const std::string& why) { return Error(ErrorCode::kModel, cat(what, " ", why)); };
  Fixed fixed;
  if (file.size() < kMagicBytes || std::memcmp(file.data(), kMagic, kMagicBytes) != 0) {
    throw fail("is no file of packed weights, such as Model.save_packed() writes");
  }
  const Error cut =
      fail(cat("is damaged: it was cut short, to ", counted(file.size(), "byte"), ", or its length was changed"));
  if (file.size() < sizeof(fixed)) throw cut;
  std::memcpy(&fixed, file.data(), sizeof(fixed));
  if (fixed.version != kVersion) {
    throw fail(cat("is of version ", fixed.version, " of the format, and this inferkit reads version ", kVersion));
  }
  if (fixed.file_bytes != file.size()) throw cut;
  if (fixed.header_bytes < sizeof(fixed) || fixed.header_bytes > std::min<uint64_t>(file.size(), kMostHeader)) {
    throw fail("is damaged: its header has an impossible length");
  }
  // What is checked is what is read: the file may change meanwhile.
  const auto head = file.first(static_cast<size_t>(fixed.header_bytes));
  std::vector<std::byte> copy(head.begin(), head.end());
  std::memcpy(copy.data(), &fixed, sizeof(fixed));
  if (digest_of(copy, fixed.key) != fixed.digest) throw fail("is damaged: its header is not what was written");

  PackedHeader out;
  out.key = fixed.key;
  Reader r(std::span<const std::byte>(copy).subspan(sizeof(fixed)), what);
  for (std::string* text : {&out.tag.build, &out.tag.tier, &out.tag.precision}) *text = r.text();
  out.files.resize(r.count(7 * sizeof(uint64_t)));
  for (ModelFileState& f : out.files) {
    for (uint64_t* n : {&f.bytes, &f.device, &f.inode}) *n = r.number();
    for (int64_t* n : {&f.modified_s, &f.modified_ns, &f.touched_s, &f.touched_ns})
      *n = static_cast<int64_t>(r.number());
  }
  const size_t sections = r.count(8 * sizeof(uint64_t));
  body = PackedHeader::body_at(fixed.header_bytes);
  if (body > file.size()) r.damaged();
  const uint64_t room = file.size() - body;
  uint64_t end = 0;
  for (size_t i = 0; i < sections; ++i) {
    PackedSection s = read_section(r, out.files.size());
    if (s.offset % kPackedPage != 0 || s.offset < end || s.offset > room || s.bytes > room - s.offset) r.damaged();
    end = s.offset + s.bytes;
    out.sections.push_back(std::move(s));
  }
  if (!r.at_end()) r.damaged();
  return out;
}

}  // namespace inferkit
