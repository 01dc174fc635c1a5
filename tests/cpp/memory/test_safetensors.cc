#include <cstring>
#include <random>

#include "check_error.h"
#include "cpu_time.h"
#include "memory/safetensors.h"

using namespace inferkit;
using inferkit::testing::cpu_seconds;

namespace {
constexpr auto kModel = ErrorCode::kModel;

std::string file_of(const std::string& header, size_t data_bytes) {
  std::string out(8, '\0');
  const uint64_t n = header.size();
  std::memcpy(out.data(), &n, 8);
  out += header;
  for (size_t i = 0; i < data_bytes; ++i) out.push_back(static_cast<char>(i));
  return out;
}
SafetensorsIndex parse(const std::string& file) {
  // A copy on the heap of the exact size, so that ASan sees a read beyond it.
  const std::vector<char> exact(file.begin(), file.end());
  return parse_safetensors(std::as_bytes(std::span(exact)), "f");
}
SafetensorsIndex parse(const std::string& header, size_t data_bytes) { return parse(file_of(header, data_bytes)); }

// One tensor of 6 floats, its parts to be replaced.
std::string one(const std::string& dtype = "\"F32\"", const std::string& shape = "[2,3]",
                const std::string& offsets = "[0,24]") {
  return "{\"w\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
}
const std::string kThree =
    R"({"__metadata__":{"format":"pt","é\n":"x"},"b":{"dtype":"I64","shape":[2],"data_offsets":[24,40]},)"
    R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"s":{"dtype":"BOOL","shape":[],"data_offsets":[40,41]}}   )";
}  // namespace

TEST(safetensors_reads_a_file) {
  const SafetensorsIndex index = parse(kThree, 41);
  CHECK_EQ(index.tensors.size(), 3u);
  const size_t data = 8 + kThree.size();
  CHECK_EQ(index.tensors[0].name, "a");
  CHECK_EQ(index.tensors[0].shape.str(), "(2, 3)");
  CHECK_EQ(index.tensors[0].offset, data);
  CHECK(index.tensors[1].dtype == DType::kI64);
  CHECK_EQ(index.tensors[1].offset, data + 24);
  CHECK_EQ(index.tensors[2].shape.rank(), 0u);
  CHECK_EQ(index.tensors[2].offset, data + 40);
  CHECK_EQ(index.metadata.size(), 2u);
  CHECK_EQ(index.metadata.at("é\n"), "x");
}

TEST(safetensors_every_dtype) {
  const std::pair<const char*, DType> all[] = {
      {"F64", DType::kF64}, {"F32", DType::kF32}, {"F16", DType::kF16},  {"BF16", DType::kBF16}, {"I64", DType::kI64},
      {"I32", DType::kI32}, {"I16", DType::kI16}, {"I8", DType::kI8},    {"U64", DType::kU64},   {"U32", DType::kU32},
      {"U16", DType::kU16}, {"U8", DType::kU8},   {"BOOL", DType::kBool}};
  const size_t sizes[] = {8, 4, 2, 2, 8, 4, 2, 1, 8, 4, 2, 1, 1};
  for (size_t i = 0; i < std::size(all); ++i) {
    const std::string dtype = std::string("\"") + all[i].first + "\"";
    const auto index = parse(one(dtype, "[3]", "[0," + std::to_string(3 * sizes[i]) + "]"), 3 * sizes[i]);
    CHECK(index.tensors[0].dtype == all[i].second);
  }
  for (const char* other : {"F6_E2M3", "F4", "f32", "", "C64"}) {
    CHECK_MESSAGE(kModel, parse(one(std::string("\"") + other + "\""), 24),
                  "'w' has dtype '" + std::string(other) + "'");
  }
}

TEST(safetensors_empty_tensors_and_files) {
  CHECK_EQ(parse("{}", 0).tensors.size(), 0u);
  CHECK_EQ(parse(R"({"__metadata__":{}})", 0).tensors.size(), 0u);
  // Empty tensors may share a place with each other and with the one that follows.
  const auto index = parse(R"({"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                           R"("e":{"dtype":"F32","shape":[0,5],"data_offsets":[0,0]},)"
                           R"("f":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}})",
                           4);
  CHECK_EQ(index.tensors[0].name, "e");
  CHECK_EQ(index.tensors[1].name, "x");
  CHECK_EQ(index.tensors[2].name, "f");
}

TEST(safetensors_ignores_other_fields) {
  const auto index = parse(R"({"w":{"extra":{"a":[1,{"b":null}]},"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1);
  CHECK_EQ(index.tensors.size(), 1u);
}

TEST(safetensors_refuses_a_wrong_frame) {
  CHECK_MESSAGE(kModel, parse(std::string()), "0 bytes");
  CHECK_MESSAGE(kModel, parse(std::string(7, '\0')), "7 bytes");
  CHECK_MESSAGE(kModel, parse(std::string(8, '\0')), "'{'");
  CHECK_MESSAGE(kModel, parse(cat(" ", one()), 24), "'{'");
  CHECK_MESSAGE(kModel, parse("[]", 0), "'{'");
  CHECK_MESSAGE(kModel, parse(one() + "x", 24), "nothing more");
  CHECK_MESSAGE(kModel, parse(one() + std::string(1, '\0'), 24), "nothing more");
  CHECK_MESSAGE(kModel, parse(one(), 23), "cut short");
  CHECK_MESSAGE(kModel, parse(one(), 25), "too long");
  CHECK_MESSAGE(kModel, parse("{}", 1), "too long");
  for (const uint64_t claim : {uint64_t{100'000'001}, uint64_t{1} << 40, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::string file = file_of(one(), 24);
    std::memcpy(file.data(), &claim, 8);
    CHECK_MESSAGE(kModel, parse(file), "claims " + std::to_string(claim));
  }
  std::string file = file_of(one(), 24);
  const uint64_t beyond = file.size() - 7;
  std::memcpy(file.data(), &beyond, 8);
  CHECK_MESSAGE(kModel, parse(file), "the file holds");
}

TEST(safetensors_header_may_be_100_million_bytes) {
  std::string header = one();
  header.resize(100'000'000, ' ');
  CHECK_EQ(parse(header, 24).tensors.size(), 1u);
  header += ' ';
  CHECK_MESSAGE(kModel, parse(header, 24), "at most 100000000");
}

TEST(safetensors_refuses_wrong_claims) {
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "[2,3]", "[0,20]"), 20), "'w' takes 20 bytes, expected 24");
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "[2,3]", "[24,0]"), 24), "before its begin");
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "[2,3]", "[4,28]"), 28), "hole");
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "[2,3]", "[0]"), 24), "1 data_offsets");
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "[2,3]", "[0,24,24]"), 24), "3 data_offsets");
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "[2,-3]"), 24), "non-negative");
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "[2,3.0]"), 24), "fraction");
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "[2,\"3\"]"), 24), "non-negative");
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "6"), 24), "an array");
  CHECK_MESSAGE(kModel, parse(one("5"), 24), "a string");
  CHECK_MESSAGE(kModel, parse(one("\"F32\"", "[1,1,1,1,1,1,1,2,3]"), 24), "more than 8 dimensions");
  // 2^32 * 2^32 * ... would wrap to a small number; so would 2^62 elements of 8 bytes.
  CHECK_MESSAGE(kModel, parse(one("\"U8\"", "[4294967296,4294967296]", "[0,0]"), 0), "more elements");
  CHECK_MESSAGE(kModel, parse(one("\"F64\"", "[4611686018427387904]", "[0,0]"), 0), "more elements");
  CHECK_MESSAGE(kModel, parse(one("\"U8\"", "[9223372036854775808]", "[0,0]"), 0), "dimension of 9223372036854775808");
  CHECK_MESSAGE(kModel, parse(one("\"U8\"", "[0]", "[18446744073709551615,18446744073709551615]"), 0), "hole");
  CHECK_MESSAGE(kModel, parse(one("\"U8\"", "[1]", "[0,18446744073709551616]"), 1), "2^64");
}

TEST(safetensors_refuses_overlap_and_holes) {
  const auto two = [](const std::string& a, const std::string& b) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}";
  };
  CHECK_EQ(parse(two("[4,8]", "[0,4]"), 8).tensors[0].name, "b");
  CHECK_MESSAGE(kModel, parse(two("[0,4]", "[2,6]"), 6), "'b' begins at byte 2 of the data, expected 4: it overlaps");
  CHECK_MESSAGE(kModel, parse(two("[0,4]", "[0,4]"), 4), "overlaps");
  CHECK_MESSAGE(kModel, parse(two("[0,4]", "[5,9]"), 9), "hole");
}

TEST(safetensors_refuses_duplicates) {
  const std::string w = R"("w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  const std::string w2 = R"("\u0077":{"dtype":"U8","shape":[1],"data_offsets":[1,2]})";
  CHECK_MESSAGE(kModel, parse("{" + w + "," + w + "}", 1), "'w' comes twice");
  CHECK_MESSAGE(kModel, parse("{" + w + "," + w2 + "}", 2), "'w' comes twice");
  CHECK_MESSAGE(kModel, parse(R"({"__metadata__":{},"__metadata__":{}})", 0), "__metadata__ comes twice");
  CHECK_MESSAGE(kModel, parse(R"({"__metadata__":{"k":"1","k":"2"}})", 0), "'k' comes twice");
  CHECK_MESSAGE(kModel, parse(R"({"__metadata__":{"k":1}})", 0), "a string");
  CHECK_MESSAGE(kModel, parse(R"({"w":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
                "'dtype' twice");
  CHECK_MESSAGE(kModel, parse(R"({"w":{"shape":[1],"data_offsets":[0,1]}})", 1), "no 'dtype'");
  CHECK_MESSAGE(kModel, parse(R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1), "no 'shape'");
  CHECK_MESSAGE(kModel, parse(R"({"w":{"dtype":"U8","shape":[1]}})", 1), "no 'data_offsets'");
}

TEST(safetensors_messages_bear_any_name) {
  CHECK_MESSAGE(kModel, parse(R"({"a\u0000b\n":{}})", 0), R"(tensor 'a\x00b\x0a' has no)");
  std::string name = "x";
  for (int i = 0; i < 1000; ++i) name += "é";
  const std::string cut = name.substr(0, 121) + "...' has no";
  CHECK_MESSAGE(kModel, parse(cat("{\"", name, "\":{}}"), 0), cut);
}

TEST(safetensors_refuses_every_truncation) {
  const std::string file = file_of(kThree, 41);
  for (size_t size = 0; size < file.size(); ++size) CHECK_THROWS(parse(file.substr(0, size)), Error);
}

// Whatever the header holds, the answer is an Error, or an index whose tensors lie inside the file.
TEST(safetensors_survives_every_bit_flip_and_random_bytes) {
  const std::string file = file_of(kThree, 41);
  size_t accepted = 0;
  const auto check = [&](const std::string& bytes) {
    try {
      const SafetensorsIndex index = parse(bytes);
      size_t total = 0;
      for (const auto& entry : index.tensors) {
        const size_t size = TensorView{entry.dtype, entry.shape, nullptr}.bytes();
        CHECK(entry.offset <= bytes.size() && size <= bytes.size() - entry.offset);
        total += size;
      }
      CHECK(total < bytes.size());
      ++accepted;
    } catch (const Error& error) {
      CHECK(error.code() == kModel);
    }
  };
  for (size_t bit = 0; bit < 8 * (8 + kThree.size()); ++bit) {
    std::string flipped = file;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    check(flipped);
  }
  CHECK(accepted > 0);  // a flip in a name or in the metadata leaves a legal file
  const unsigned seed = std::random_device()();
  std::mt19937 random(seed);
  std::cout << "  seed " << seed << "\n";
  const std::string alphabet = "{}[]:,\"\\ u0123456789eE.-Fw\xc3\xa9";
  for (int round = 0; round < 20000; ++round) {
    std::string header = kThree;
    for (unsigned i = 0; i <= random() % 4; ++i)
      header[random() % header.size()] = alphabet[random() % alphabet.size()];
    check(file_of(header, 41));
  }
}

TEST(safetensors_many_tensors_take_little_time) {
  std::string header = "{";
  const size_t count = 200'000;
  for (size_t i = 0; i < count; ++i) {
    header += cat(i ? "," : "", "\"t", i, R"(":{"dtype":"U8","shape":[1],"data_offsets":[)", i, ",", i + 1, "]}");
  }
  CHECK(cpu_seconds([&] { CHECK_EQ(parse(header + "}", count).tensors.size(), count); }) < 20);
}
