// Which tensors of a file stay in the file.
#include <cstring>

#include "graph/onnx_reader.h"
#include "memory/temp_dir.h"
#include "onnx_bytes.h"
#include "test.h"

using namespace inferkit;
using namespace inferkit::testing;

namespace {

constexpr size_t kLarge = 16 << 10;

/// TensorProto of `type` that lies at `offset` of the file `location`.
Message external(std::string_view name, int64_t elements, int32_t type, const std::string& offset,
                 const std::string& location) {
  Message m;
  m.number(1, static_cast<uint64_t>(elements)).number(2, static_cast<uint64_t>(type)).text(8, name);
  m.message(13, Message().text(1, "location").text(2, location));
  m.message(13, Message().text(1, "offset").text(2, offset));
  return m.number(14, 1);
}

ModelFile read_with(const TempDir& dir, const Message& weight, Placement placement = Placement::kMapped) {
  const Message graph = graph_of({node("Add", {"x", "w"}, {"y"})}).message(5, weight);
  return read_onnx(dir.write("m.onnx", model(graph).bytes), placement);
}

const Tensor& only(const ModelFile& file) { return file.graph.constants.begin()->second; }

constexpr int32_t kFloat = 1, kUint8 = 2, kInt64 = 7, kBool = 9;

}  // namespace

TEST(mapped_tensors_are_views_that_keep_their_file) {
  const TempDir dir;
  dir.write("data", std::string(64 + kLarge, 'a'));
  Tensor w;
  {
    const ModelFile file = read_with(dir, external("w", kLarge / 4, kFloat, "64", "data"));
    w = only(file);
    CHECK_EQ(reinterpret_cast<uintptr_t>(w.data.place()) % 4096, 64u);
    CHECK_EQ(file.files.size(), 1u);  // not the model's own: nothing in it is read any more
    CHECK(file.files.find(w.data) != nullptr);
    CHECK_EQ(file.misaligned_bytes, 0u);
  }
  CHECK_EQ(static_cast<const char*>(w.data)[kLarge - 1], 'a');
}

TEST(mapped_tensors_are_large_floats_and_bytes_at_addresses_that_fit) {
  const TempDir dir;
  dir.write("data", std::string(2 * kLarge, '\1'));
  const auto mapped = [&](int64_t elements, int32_t type, const std::string& offset, Placement placement) {
    return read_with(dir, external("w", elements, type, offset, "data"), placement).files.size();
  };
  constexpr auto kMapped = Placement::kMapped;
  CHECK_EQ(mapped(kLarge / 4, kFloat, "0", kMapped), 1u);
  CHECK_EQ(mapped(kLarge, kUint8, "1", kMapped), 1u);
  CHECK_EQ(mapped(kLarge / 4 - 1, kFloat, "0", kMapped), 0u);
  CHECK_EQ(mapped(kLarge / 8, kInt64, "0", kMapped), 0u);
  CHECK_EQ(mapped(kLarge, kBool, "0", kMapped), 0u);
  CHECK_EQ(mapped(kLarge / 4, kFloat, "2", kMapped), 1u);  // which is copied when it is read
  CHECK_EQ(mapped(kLarge / 4, kFloat, "2", Placement::kCopied), 0u);
  CHECK_EQ(mapped(kLarge / 4, kFloat, "0", Placement::kCopied), 0u);
  CHECK_EQ(read_with(dir, external("w", kLarge / 4, kFloat, "2", "data")).misaligned_bytes, kLarge);
}

TEST(mapped_tensors_may_be_in_the_model_itself) {
  const TempDir dir;
  const std::string raw(kLarge, '\x55');
  for (size_t pad = 1; pad <= 4; ++pad) {
    const std::string name(pad, 'w');
    const Message graph = graph_of({node("Neg", {"x"}, {"y"})}).message(5, tensor(name, {kLarge / 4}, raw));
    const std::string bytes = model(graph).bytes;
    const ModelFile file = read_onnx(dir.write("m.onnx", bytes));
    const bool aligned = bytes.find(raw) % 4 == 0;
    CHECK_EQ(file.files.size(), 1u);
    CHECK_EQ(file.misaligned_bytes, aligned ? 0u : kLarge);
    const Tensor& w = only(file);
    CHECK_EQ(w.data.odd() == nullptr, aligned);
    CHECK_EQ(reinterpret_cast<uintptr_t>(w.as<float>()) % 4, 0u);
    CHECK_EQ(std::memcmp(w.as<float>(), raw.data(), kLarge), 0);
  }
}

TEST(misaligned_tensors_are_copied_when_they_are_read_and_by_then_at_the_latest) {
  const TempDir dir;
  dir.write("data", std::string(2 * kLarge, 'a'));
  const ModelFile file = read_with(dir, external("w", kLarge / 4, kFloat, "2", "data"));
  const Tensor& w = only(file);
  CHECK(w.data.odd() != nullptr);
  CHECK_EQ(reinterpret_cast<uintptr_t>(w.data.place()) % 4096, 2u);
  CHECK_EQ(w.bytes(), kLarge);
  const Tensor reshaped{w.dtype, {2, kLarge / 8}, w.data, w.owner};
  CHECK(reshaped.data == w.data);
  CHECK(!w.data.odd()->copied());  // where it lies, and how large it is, tells no element
  const auto* at = reshaped.as<float>();
  CHECK(w.data.odd()->copied());
  CHECK_EQ(static_cast<const void*>(w.data), static_cast<const void*>(at));
  CHECK(at != static_cast<const void*>(w.data.place()));
}

TEST(copies_of_misaligned_tensors_are_exact_and_aligned) {
  const TempDir dir;
  std::string all(1, '?');
  Message graph = graph_of({node("Neg", {"x"}, {"y"})});
  constexpr int64_t kCounts[] = {4096, 5001, 700'000, 4097, 9'000'000};  // the last has more than a block
  for (const int64_t count : kCounts) {
    const std::string offset = std::to_string(all.size());
    for (int64_t i = 0; i < count; ++i) {
      const auto value = static_cast<float>(i + count);
      all.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    graph.message(5, external(cat("w", count), count, kFloat, offset, "data"));
  }
  dir.write("data", all);
  for (const Placement placement : {Placement::kMapped, Placement::kCopied}) {
    const ModelFile file = read_onnx(dir.write("m.onnx", model(graph).bytes), placement);
    CHECK_EQ(file.files.empty(), placement == Placement::kCopied);
    CHECK_EQ(file.graph.constants.size(), std::size(kCounts));
    for (const auto& [id, t] : file.graph.constants) {
      const int64_t count = t.shape.elements();
      CHECK_EQ(reinterpret_cast<uintptr_t>(t.as<float>()) % 64, 0u);
      int64_t wrong = 0;
      for (int64_t i = 0; i < count; ++i) wrong += t.as<float>()[i] != static_cast<float>(i + count);
      CHECK_EQ(wrong, 0);
    }
  }
}

TEST(mapped_tensors_of_many_files_are_copied) {
  const TempDir dir;
  Message graph = graph_of({node("Neg", {"x"}, {"y"})});
  for (int i = 0; i < 100; ++i) {
    const std::string name = cat("w", i);
    dir.write(name, std::string(kLarge, static_cast<char>(i)));
    graph.message(5, external(name, kLarge, kUint8, "0", name));
    graph.message(5, external(name + "again", kLarge, kUint8, "0", name));
  }
  const ModelFile file = read_onnx(dir.write("m.onnx", model(graph).bytes));
  CHECK(file.files.size() >= 50);
  CHECK(file.files.size() <= 64);
  CHECK_EQ(file.graph.constants.size(), 200u);
  for (const auto& [id, t] : file.graph.constants) {
    const std::string& name = file.graph.values[static_cast<size_t>(id)].name;
    CHECK_EQ(static_cast<int>(t.as<uint8_t>()[kLarge - 1]), std::stoi(name.substr(1)));
  }
  CHECK_EQ(file.file_bytes, 100 * kLarge + std::filesystem::file_size(dir / "m.onnx"));
}
