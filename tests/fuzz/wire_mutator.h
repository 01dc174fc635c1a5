// Changes a protobuf message field by field, so that what comes out is a well-formed message with other contents: most
// random changes of its bytes break a length and get no further than the reader's first check.
#pragma once
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace inferkit::fuzz {

struct Field {
  uint32_t number = 0;
  uint32_t wire_type = 0;       // 0 varint, 1 and 5 fixed, 2 bytes
  uint64_t value = 0;           // of the first three
  std::string bytes;            // of the last, where it is no message
  std::vector<Field> children;  // of the last, where it may be one
  bool is_message = false;
};

/// Bytes that read as a message, to a bounded depth, count as one. False where `size` bytes are none.
bool parse(const uint8_t* data, size_t size, int depth, std::vector<Field>& fields);
std::string serialize(const std::vector<Field>& fields);

/// One change: a number, a leaf's bytes, a leaf's bytes by another's (names!), a field dropped, doubled or moved.
void mutate(std::vector<Field>& fields, std::mt19937& rng);

}  // namespace inferkit::fuzz
