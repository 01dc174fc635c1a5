// Writes ONNX messages byte by byte, well-formed or not, for tests that no proper writer would help with.
#pragma once
#include <cstdint>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "graph/onnx_reader.h"

namespace inferkit::testing {

inline std::string varint(uint64_t v) {
  std::string out;
  for (; v >= 0x80; v >>= 7) out += static_cast<char>(v | 0x80);
  return out + static_cast<char>(v);
}

/// One message: fields in the order they are added.
struct Message {
  std::string bytes;

  Message& number(uint32_t field, uint64_t value) {
    bytes += varint(field << 3) + varint(value);
    return *this;
  }
  Message& text(uint32_t field, std::string_view value) {
    bytes += varint(field << 3 | 2);
    bytes += varint(value.size());
    bytes += value;
    return *this;
  }
  Message& message(uint32_t field, const Message& value) { return text(field, value.bytes); }
  Message& raw(std::string_view value) {
    bytes += value;
    return *this;
  }
};

inline Message attribute(std::string_view name, const Message& graph) {
  return Message().text(1, name).number(20, 5).message(6, graph);
}

inline Message node(std::string_view op, std::initializer_list<std::string_view> inputs,
                    std::initializer_list<std::string_view> outputs, std::string_view name = "") {
  Message m;
  for (const auto in : inputs) m.text(1, in);
  for (const auto out : outputs) m.text(2, out);
  if (!name.empty()) m.text(3, name);
  return m.text(4, op);
}

inline Message value_info(std::string_view name, std::initializer_list<int64_t> dims = {2}, int32_t elem_type = 1) {
  Message shape;
  for (const int64_t d : dims) shape.message(1, Message().number(1, static_cast<uint64_t>(d)));
  const Message tensor = Message().number(1, static_cast<uint64_t>(elem_type)).message(2, shape);
  return Message().text(1, name).message(2, Message().message(1, tensor));
}

inline Message tensor(std::string_view name, std::initializer_list<int64_t> dims, std::string_view raw,
                      int32_t type = 1) {
  Message m;
  for (const int64_t d : dims) m.number(1, static_cast<uint64_t>(d));
  return m.number(2, static_cast<uint64_t>(type)).text(8, name).text(9, raw);
}

/// A model around `graph` with opset 17.
inline Message model(const Message& graph) {
  return Message().number(1, 8).message(7, graph).message(8, Message().text(1, "").number(2, 17));
}

/// x -> nodes -> y.
inline Message graph_of(std::initializer_list<Message> nodes, std::string_view output = "y") {
  Message g;
  for (const Message& n : nodes) g.message(1, n);
  return g.message(11, value_info("x")).message(12, value_info(output));
}

inline ModelFile read(std::string_view bytes, const std::string& folder = {}) {
  // On the heap and exactly as long as it says, so that the sanitizer sees a read past the end.
  auto copy = std::make_shared<std::vector<std::byte>>(bytes.size());
  if (!bytes.empty()) std::memcpy(copy->data(), bytes.data(), bytes.size());
  copy->shrink_to_fit();
  return read_onnx(*copy, folder, copy);
}

inline std::string file_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::string data_path(const std::string& name) { return std::string(INFERKIT_TEST_DATA) + "/graph/" + name; }

/// The message of the Error that reading gives, led by its code's class; "" where it succeeds.
inline std::string read_error(const std::string& bytes, const std::string& folder = {}) {
  try {
    read(bytes, folder);
  } catch (const Error& e) {
    const char* code = e.code() == ErrorCode::kModel           ? "model: "
                       : e.code() == ErrorCode::kUnsupportedOp ? "unsupported: "
                                                               : "other: ";
    return std::string(code) + e.what();
  }
  return "";
}

}  // namespace inferkit::testing

/// Reading `bytes` fails, with a message that begins with `code` ("model: ") and holds `part`.
#define CHECK_READ_FAILS(bytes, code, part)                                                                      \
  do {                                                                                                           \
    const std::string error_ = ::inferkit::testing::read_error(bytes);                                           \
    if (error_.rfind(code, 0) != 0 || error_.find(part) == std::string::npos)                                    \
      ::inferkit::testing::fail(__FILE__, __LINE__, ::inferkit::cat("expected ", code, part, ", got ", error_)); \
  } while (false)
