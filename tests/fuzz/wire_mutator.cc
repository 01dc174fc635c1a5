#include "wire_mutator.h"

#include <algorithm>
#include <cstring>
#include <iterator>

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace inferkit::fuzz {
namespace {

constexpr int kMaxDepth = 24;

bool read_varint(const uint8_t*& p, const uint8_t* end, uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64 && p < end; shift += 7) {
    const uint8_t byte = *p++;
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

void write_varint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

struct Place {
  std::vector<Field>* siblings;
  size_t index;
  Field& field() const { return (*siblings)[index]; }
};

void collect(std::vector<Field>& fields, std::vector<Place>& out) {
  for (size_t i = 0; i < fields.size(); ++i) {
    out.push_back({&fields, i});
    collect(fields[i].children, out);
  }
}

uint64_t number(std::mt19937& rng, uint64_t old) {
  constexpr uint64_t kTelling[] = {0,
                                   1,
                                   2,
                                   3,
                                   7,
                                   8,
                                   64,
                                   127,
                                   128,
                                   255,
                                   1 << 16,
                                   uint64_t{1} << 31,
                                   uint64_t{1} << 32,
                                   uint64_t{1} << 40,
                                   uint64_t{1} << 62,
                                   uint64_t{1} << 63,
                                   ~uint64_t{0},
                                   ~uint64_t{0} - 1,
                                   uint64_t{1} << 20,
                                   0x7fffffff};
  switch (rng() % 4) {
    case 0:
      return kTelling[rng() % std::size(kTelling)];
    case 1:
      return rng() % 32;
    case 2:
      return old + (rng() % 2 ? 1 : ~uint64_t{0});
    default:
      return old ^ uint64_t{1} << rng() % 64;
  }
}

void change_bytes(std::string& bytes, std::mt19937& rng) {
  constexpr size_t kRoom = 16;
  const size_t size = bytes.size();
  bytes.resize(size + rng() % kRoom + 1);
  bytes.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(bytes.data()), size, bytes.size()));
}

}  // namespace

bool parse(const uint8_t* data, size_t size, int depth, std::vector<Field>& fields) {
  const uint8_t *p = data, *end = data + size;
  while (p < end) {
    uint64_t tag = 0;
    if (!read_varint(p, end, tag) || tag >> 3 == 0 || tag >> 32) return false;
    Field field{static_cast<uint32_t>(tag >> 3), static_cast<uint32_t>(tag & 7), 0, {}, {}, false};
    const size_t left = static_cast<size_t>(end - p);
    if (field.wire_type == 0) {
      if (!read_varint(p, end, field.value)) return false;
    } else if (field.wire_type == 1 || field.wire_type == 5) {
      const size_t width = field.wire_type == 1 ? 8 : 4;
      if (left < width) return false;
      std::memcpy(&field.value, p, width);
      p += width;
    } else if (field.wire_type == 2) {
      uint64_t length = 0;
      if (!read_varint(p, end, length) || length > static_cast<uint64_t>(end - p)) return false;
      const auto n = static_cast<size_t>(length);
      field.is_message = n > 1 && depth < kMaxDepth && parse(p, n, depth + 1, field.children);
      if (!field.is_message) {
        field.children.clear();
        field.bytes.assign(reinterpret_cast<const char*>(p), n);
      }
      p += n;
    } else {
      return false;
    }
    fields.push_back(std::move(field));
  }
  return true;
}

std::string serialize(const std::vector<Field>& fields) {
  std::string out;
  for (const Field& field : fields) {
    write_varint(uint64_t{field.number} << 3 | field.wire_type, out);
    if (field.wire_type == 0) {
      write_varint(field.value, out);
    } else if (field.wire_type == 2) {
      const std::string content = field.is_message ? serialize(field.children) : field.bytes;
      write_varint(content.size(), out);
      out += content;
    } else {
      out.append(reinterpret_cast<const char*>(&field.value), field.wire_type == 1 ? 8 : 4);
    }
  }
  return out;
}

void mutate(std::vector<Field>& fields, std::mt19937& rng) {
  std::vector<Place> places;
  collect(fields, places);
  if (places.empty()) return;
  const Place place = places[rng() % places.size()];
  Field& field = place.field();
  const auto at = place.siblings->begin() + static_cast<std::ptrdiff_t>(place.index);
  switch (rng() % 8) {
    case 0:
      place.siblings->erase(at);
      return;
    case 1: {
      Field copy = field;
      place.siblings->insert(at, std::move(copy));
      return;
    }
    case 2:
      std::swap(field, (*place.siblings)[rng() % place.siblings->size()]);
      return;
    case 3:
    case 4: {  // the contents of a field of the same number elsewhere
      std::vector<Place> like;
      std::copy_if(places.begin(), places.end(), std::back_inserter(like), [&](const Place& p) {
        return p.field().number == field.number && p.field().wire_type == field.wire_type;
      });
      Field other = like[rng() % like.size()].field();
      field = std::move(other);
      return;
    }
    default:
      if (field.wire_type != 2) {
        field.value = number(rng, field.value);
      } else if (field.is_message) {
        mutate(field.children, rng);
      } else {
        change_bytes(field.bytes, rng);
      }
  }
}

}  // namespace inferkit::fuzz

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  using namespace inferkit::fuzz;
  std::mt19937 rng(seed);
  std::vector<Field> fields;
  if (rng() % 16 == 0 || !parse(data, size, 0, fields)) return LLVMFuzzerMutate(data, size, max_size);
  for (unsigned changes = 1 + rng() % 3; changes > 0; --changes) mutate(fields, rng);
  const std::string out = serialize(fields);
  if (out.empty() || out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, out.data(), out.size());
  return out.size();
}
