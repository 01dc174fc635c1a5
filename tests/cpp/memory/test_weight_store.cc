#include <cstring>
#include <system_error>

#include "check_error.h"
#include "memory/weight_store.h"
#include "temp_dir.h"

using namespace inferkit;
using inferkit::testing::TempDir;

namespace {
constexpr auto kModel = ErrorCode::kModel;

std::string safetensors(const std::string& header, const std::string& data) {
  const uint64_t n = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  return out + header + data;
}
std::string two_tensors() {
  const float values[2] = {1.5f, -2.0f};
  std::string data(reinterpret_cast<const char*>(values), 8);
  return safetensors(R"({"w":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},)"
                     R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},"__metadata__":{"k":"v"}})",
                     data + "xyz");
}
}  // namespace

TEST(weights_are_views_onto_the_file) {
  TempDir dir;
  const std::string path = dir.write("w.safetensors", two_tensors());
  const auto weights = Weights::open_safetensors(path);
  const TensorView* w = weights->find("w");
  CHECK(w != nullptr);
  CHECK_EQ(w->shape.str(), "(2, 1)");
  float value = 0;
  std::memcpy(&value, static_cast<const char*>(w->data) + 4, 4);
  CHECK_EQ(value, -2.0f);
  CHECK_EQ(std::string(weights->find("b")->as<char>(), 3), "xyz");
  CHECK(weights->find("none") == nullptr);
  CHECK(weights->find("") == nullptr);
  CHECK_EQ(weights->names()[0], "w");
  CHECK_EQ(weights->metadata().at("k"), "v");
  CHECK_EQ(weights->bytes(), 11u);
  CHECK_EQ(weights->file_bytes(), two_tensors().size());
  CHECK_EQ(weights->path(), path);
  // Zero-copy: a write to the file is seen through the view.
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end);
  file << "!";
  file.close();
  CHECK_EQ(std::string(weights->find("b")->as<char>(), 3), "xy!");
}

TEST(weights_owner_keeps_the_memory) {
  TempDir dir;
  std::shared_ptr<const void> owner;
  TensorView view;
  {
    const auto weights = Weights::open_safetensors(dir.write("w.safetensors", two_tensors()));
    owner = weights->owner();
    view = *weights->find("b");
  }
  CHECK_EQ(std::string(view.as<char>(), 3), "xyz");
}

TEST(weights_from_a_list) {
  const auto data = std::make_shared<std::vector<float>>(std::vector<float>{1, 2, 3});
  const std::weak_ptr<std::vector<float>> watch = data;
  {
    const Weights weights({{"b", {DType::kF32, {2}, data->data()}}, {"a", {DType::kF32, {}, data->data() + 2}}}, data);
    CHECK_EQ(weights.find("a")->as<float>()[0], 3.0f);
    CHECK_EQ(weights.find("b")->as<float>()[1], 2.0f);
    CHECK_EQ(weights.names()[0], "b");
    CHECK_EQ(weights.bytes(), 12u);
    CHECK_EQ(watch.use_count(), 2);
  }
  CHECK_EQ(watch.use_count(), 1);
  CHECK_MESSAGE(kModel, Weights({{"a", {}}, {"b", {}}, {"a", {}}}, nullptr), "'a' comes twice");
}

TEST(weights_bad_files) {
  TempDir dir;
  const std::string bad = dir.write("bad", two_tensors().substr(0, 100));
  CHECK_MESSAGE(kModel, Weights::open_safetensors(bad), bad);
  CHECK_MESSAGE(kModel, Weights::open_safetensors(dir.write("empty", "")), "0 bytes");
  CHECK_THROWS(Weights::open_safetensors(dir / "none"), std::system_error);
}

TEST(weights_alignment) {
  alignas(8) const char memory[16] = {};
  CHECK(is_aligned({DType::kF32, {1}, memory + 4}));
  CHECK(!is_aligned({DType::kF32, {1}, memory + 2}));
  CHECK(is_aligned({DType::kF16, {1}, memory + 2}));
  CHECK(!is_aligned({DType::kI64, {1}, memory + 4}));
  CHECK(is_aligned({DType::kU8, {1}, memory + 1}));
}
